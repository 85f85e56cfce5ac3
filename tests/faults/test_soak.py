"""A short soak: a few random jobs in random trouble; the long one is ``make soak``."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fault_table import FULL
from tests.support.soak_servers import Servers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.postgres import PostgresServer
    from tests.support.s3 import S3Server

SEED = (
    911  # its first jobs read from all three sources, write to both targets, and one index changes meanwhile
)
CYCLES = 60 if FULL else 8


@pytest.fixture
def s3(s3_server: S3Server, bucket: str) -> dict[str, str]:
    """Say where a bucket is."""
    return {**asdict(s3_server), "bucket": bucket}


@pytest.fixture
def postgres(postgres_server: PostgresServer, database: str) -> dict[str, Any]:
    """Say where a database is."""
    endpoint = postgres_server.endpoint(database)
    return {name: getattr(endpoint, name) for name in ("host", "port", "database", "user")}


@pytest.mark.elasticsearch
@pytest.mark.postgres
@pytest.mark.s3
@pytest.mark.fault("sigkill", at="elasticsearch")
@pytest.mark.fault("sigkill", at="s3")
@pytest.mark.fault("sigkill", at="file")
@pytest.mark.fault("sigkill", at="sqlite")
@pytest.mark.fault("sigkill", at="postgres")
@pytest.mark.fault("sigterm", at="file")
@pytest.mark.fault("zombie", at="file")
@pytest.mark.fault("zombie", at="s3")
@pytest.mark.fault("changing-source", at="elasticsearch")
@pytest.mark.timeout(600)
def test_random_jobs_in_random_trouble(
    tmp_path: Path,
    elasticsearch_server: ElasticsearchEndpoint,
    s3: dict[str, str],
    postgres: dict[str, Any],
) -> None:
    """Legs killed, stopped, frozen and thawed, servers away: each output is its source, record by record."""
    servers = Servers(
        folder=str(tmp_path), elasticsearch_url=elasticsearch_server.url, s3=s3, postgres=postgres
    )
    file = tmp_path / "servers.json"
    file.write_text(json.dumps(asdict(servers)))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.soak",
            f"--servers={file}",
            f"--seed={SEED}",
            f"--cycles={CYCLES}",
        ],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-3000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(found["cycles"].values()) >= CYCLES
    assert found["records"] > 0
