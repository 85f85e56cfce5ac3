"""``batchkit copy postgresql://…`` as a person runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.support.command_line import environment_of, exported, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.postgres


def test_copy_of_a_table_to_a_folder(tmp_path: Path, postgres_server: PostgresServer, database: str) -> None:
    """A table in a schema goes into a folder by any key and condition, with libpq's own variables."""
    postgres_server.run(
        "CREATE SCHEMA sales",
        "CREATE TABLE sales.orders (id int PRIMARY KEY, day date NOT NULL, UNIQUE (day, id))",
        "INSERT INTO sales.orders SELECT i, date '2026-01-01' - i FROM generate_series(1, 500) AS i",
        database=database,
    )
    environment = environment_of(tmp_path / "state") | {"PGUSER": "admin"}
    url = f"postgresql://127.0.0.1:{postgres_server.port}/{database}?table=sales.orders&key=day,id"
    done = run(
        "copy", f"{url}&where={quote('id % 2 = 0')}", f"file://{tmp_path}/out", environment=environment
    )
    assert done.returncode == 0, done.stderr
    records = exported(tmp_path / "out")
    assert [record["id"] for record in records] == list(range(500, 0, -2))
    assert records[0]["_id"] == '["2024-08-19",500]'


def test_unknown_user_is_wrong_usage(tmp_path: Path, postgres_server: PostgresServer, database: str) -> None:
    """One line and exit code 2, before anything is written."""
    environment = environment_of(tmp_path / "state") | {"PGUSER": "nobody"}
    url = f"postgresql://127.0.0.1:{postgres_server.port}/{database}?table=orders"
    done = run("copy", url, f"file://{tmp_path}/out", environment=environment)
    assert done.returncode == 2
    assert "check user, password and pg_hba.conf" in done.stderr
    assert not (tmp_path / "out").exists()
