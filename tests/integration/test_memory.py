"""Memory stays where it is: ten times the records, and records ten times as large, take no more of it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.s3 import S3Server

pytestmark = [pytest.mark.elasticsearch, pytest.mark.s3, pytest.mark.timeout(600)]

MANY = 1_000_000
FEW = 100_000
MOST_MB = 150
_BULK_RECORDS = 20_000

# The process tells its own peak: what a parent is told of a child includes the parent's size at the fork.
MEASURED = """
import re, sys
from airflow_batchkit.cli import main
try:
    main()
finally:
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]
    print(f"peak_kb={peak}", flush=True)
"""


@pytest.fixture(scope="module")
def small_records(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give an index of a million records of about 340 bytes in two shards."""
    yield from _index(elasticsearch_server, MANY, padding=270)


@pytest.fixture(scope="module")
def large_records(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give an index of a hundred thousand records of about 3,400 bytes in two shards."""
    yield from _index(elasticsearch_server, FEW, padding=3330)


def _index(server: ElasticsearchEndpoint, count: int, *, padding: int) -> Iterator[str]:
    name = f"memory-{secrets.token_hex(4)}"
    server.request(
        "PUT",
        f"/{name}",
        {
            "settings": {"number_of_shards": 2, "number_of_replicas": 0, "refresh_interval": -1},
            "mappings": {"dynamic": False, "properties": {"n": {"type": "long"}}},
        },
    )
    text = secrets.token_hex(padding // 2)
    step = max(1, _BULK_RECORDS * 340 // (padding + 70))
    for start in range(0, count, step):
        lines = "".join(
            f'{{"index":{{"_id":"{n}"}}}}\n{{"n":{n},"customer":"customer {n % 977}","text":"{text}"}}\n'
            for n in range(start, min(start + step, count))
        )
        server.request("POST", f"/{name}/_bulk", lines.encode(), timeout=120)
    server.request("POST", f"/{name}/_refresh", timeout=120)
    yield name
    server.request("DELETE", f"/{name}")


def peak_mb(index_url: str, target: str, s3: S3Server, home: Path, *options: str) -> float:
    """Run ``batchkit copy`` in a process of its own and return its peak memory in megabytes."""
    source = index_url.replace("http://", "elasticsearch+http://")
    arguments = ["copy", source, target, "--no-progress", *options]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **s3.environment(), "XDG_STATE_HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.rpartition("peak_kb=")[2]) / 1024


@pytest.fixture
def measured(
    elasticsearch_server: ElasticsearchEndpoint, s3_server: S3Server, bucket: str, tmp_path: Path
) -> Callable[..., float]:
    """Give a function that copies an index to a new prefix and returns the peak memory in megabytes."""

    def measure(index: str, *options: str) -> float:
        target = f"s3://{bucket}/{secrets.token_hex(4)}"
        return peak_mb(f"{elasticsearch_server.url}/{index}", target, s3_server, tmp_path, *options)

    return measure


def test_memory_is_flat(measured: Callable[..., float], small_records: str, large_records: str) -> None:
    """Ten times the records, and records ten times as large, take at most a tenth more memory."""
    # Batches small enough that a hundred thousand records fill all that can be in memory at once, too.
    batches = ("--max-bytes-per-batch", "8MiB")
    first = json.dumps({"range": {"n": {"lt": FEW}}})

    few = measured(small_records, *batches, "--query", first)
    many = measured(small_records, *batches)
    large = measured(large_records, *batches)

    assert many <= few * 1.1
    assert large <= few * 1.1


def test_memory_is_small(measured: Callable[..., float], small_records: str, large_records: str) -> None:
    """With the settings that nobody changed, a copy takes at most 150 MB."""
    assert measured(small_records) <= MOST_MB
    assert measured(large_records) <= MOST_MB
