"""SIGKILL at every boundary of the loop, on real connectors: nothing lost, nothing doubled, no leftovers."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.kill_sweep import Sweep, settings_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.postgres import PostgresServer
    from tests.support.s3 import S3Server

ORDERS = 40


def sweep_results(sweep: Sweep) -> list[dict[str, Any]]:
    """Run the sweep in a process of its own and return its lines."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-m",
            "tests.support.kill_sweep",
            settings_file(sweep),
        ],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(results: list[dict[str, Any]]) -> None:
    """Compare every kill point with the uninterrupted run."""
    reference, *killed = results
    wanted = reference["picture"]
    assert wanted["counts"]["read"] == ORDERS
    check_record_by_record(wanted)
    for effect in ("sink.put", "checkpoint.save", "dead_letters.put"):
        assert reference["moments"].count(f"before {effect}") >= 2, reference["moments"]
    for result in killed:
        assert result["picture"] == wanted, result["moment"]
    # Two shards are read in turns: a run may have a few effects less than the one that was counted.
    assert sum(result["killed"] for result in killed) >= len(killed) * 0.8


def check_record_by_record(picture: dict[str, Any]) -> None:
    """Compare a run that nobody killed with its source: each order is in its place, as it was."""
    lines = {int(line["_id"]): line for line in map(json.loads, picture["lines"])}
    letters = {int(name): record for name, record in map(json.loads, picture["letters"])}
    poisoned = {number for number in range(ORDERS) if number % 13 == 0}
    filtered = {number for number in range(ORDERS) if number % 7 == 0} - poisoned
    assert letters.keys() == poisoned
    assert lines.keys() == set(range(ORDERS)) - poisoned - filtered
    assert picture["counts"]["filtered"] == len(filtered)
    for number, found in {**lines, **letters}.items():
        assert found["number"] == number
        assert found.get("customer", f"customer {number % 5}") == f"customer {number % 5}"
    assert len(picture["lines"]) + len(picture["letters"]) == len(lines) + len(letters)


def make_orders(path: Path) -> None:
    """Make a SQLite table of orders."""
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY, customer TEXT NOT NULL)")
        database.executemany(
            "INSERT INTO orders VALUES (?, ?)",
            [(number, f"customer {number % 5}") for number in range(ORDERS)],
        )
    database.close()


def s3_settings(server: S3Server, bucket: str) -> dict[str, str]:
    """Return what the sweep's own process needs to reach a bucket."""
    return {
        "endpoint_url": server.endpoint_url,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
        "region": server.region,
        "bucket": bucket,
    }


@pytest.mark.fault("sigkill", at="sqlite")
@pytest.mark.fault("sigkill", at="file")
@pytest.mark.fault("answer-lost", at="file")
@pytest.mark.fault("poison", at="file")
@pytest.mark.timeout(900)
def test_killed_anywhere_from_sqlite_to_files(tmp_path: Path) -> None:
    """A run from SQLite to a folder, killed at each side effect, ends as if nothing had been."""
    make_orders(tmp_path / "orders.db")
    check(sweep_results(Sweep(folder=str(tmp_path), source="sqlite", target="file")))


@pytest.mark.s3
@pytest.mark.timeout(900)
def test_killed_anywhere_with_the_checkpoint_beside_the_output(
    tmp_path: Path, s3_server: S3Server, bucket: str
) -> None:
    """Killed at each side effect, conditional saves among them, it ends as if nothing had been."""
    make_orders(tmp_path / "orders.db")
    s3 = s3_settings(s3_server, bucket)
    check(sweep_results(Sweep(folder=str(tmp_path), source="sqlite", target="s3", s3=s3, beside=True)))


@pytest.mark.fault("poison", at="postgres")
@pytest.mark.fault("sigkill", at="postgres")
@pytest.mark.postgres
@pytest.mark.timeout(900)
def test_killed_anywhere_from_postgres_to_files(
    tmp_path: Path, postgres_server: PostgresServer, database: str
) -> None:
    """A run from PostgreSQL to a folder, killed at each side effect, ends as if nothing had been."""
    postgres_server.run(
        "CREATE TABLE orders (number int PRIMARY KEY, customer text NOT NULL)",
        f"INSERT INTO orders SELECT i, 'customer ' || i % 5 FROM generate_series(0, {ORDERS - 1}) AS i",  # noqa: S608  # a test's own text
        database=database,
    )
    where = postgres_server.endpoint(database)
    settings = {"host": where.host, "port": where.port, "database": where.database, "user": where.user}
    check(sweep_results(Sweep(folder=str(tmp_path), source="postgres", target="file", postgres=settings)))


@pytest.mark.fault("sigkill", at="elasticsearch")
@pytest.mark.fault("sigkill", at="s3")
@pytest.mark.fault("answer-lost", at="s3")
@pytest.mark.elasticsearch
@pytest.mark.s3
@pytest.mark.timeout(900)
def test_killed_anywhere_from_elasticsearch_to_s3(
    tmp_path: Path, elasticsearch_server: ElasticsearchEndpoint, s3_server: S3Server, bucket: str
) -> None:
    """A run from two shards to S3, killed before and after each side effect, ends as if nothing had been."""
    elasticsearch_server.request(
        "PUT", "/orders", {"settings": {"number_of_shards": 2, "number_of_replicas": 0}}
    )
    try:
        lines = [
            line
            for number in range(ORDERS)
            for line in (json.dumps({"index": {"_id": str(number)}}), json.dumps({"number": number}))
        ]
        body = "".join(f"{line}\n" for line in lines).encode()
        elasticsearch_server.request("POST", "/orders/_bulk?refresh=true", body)
        sweep = Sweep(
            folder=str(tmp_path),
            source="elasticsearch",
            target="s3",
            elasticsearch_url=elasticsearch_server.url,
            s3=s3_settings(s3_server, bucket),
        )
        check(sweep_results(sweep))
    finally:
        elasticsearch_server.request("DELETE", "/orders")
