"""Every source of the package passes the source contract."""

from __future__ import annotations

import dataclasses
import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import pytest
from typing_extensions import override

from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.sql import SqlSource
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.testing.contract import SourceContract
from airflow_batchkit.testing.doubles import FakeConnections, MemorySource, made_up_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from airflow_batchkit.engine.source import Source
    from airflow_batchkit.engine.types import Record
    from tests.support.postgres import PostgresServer


class TestMemorySource(SourceContract):
    PARTITIONS: ClassVar[dict[str, list[Record]]] = {
        "a": made_up_records(23, prefix="a-"),
        "b": made_up_records(1, prefix="b-"),
        "c": [],
    }

    @pytest.fixture(params=["records", "windows"])
    @override
    def source(self, request: pytest.FixtureRequest) -> Source:
        return MemorySource(partitions=self.PARTITIONS, style=request.param, page_records=4, window_records=6)

    @pytest.fixture
    @override
    def expected(self) -> Sequence[tuple[str, bytes]]:
        return [(record.id, bytes(record.body)) for records in self.PARTITIONS.values() for record in records]

    @pytest.fixture
    @override
    def refused(self) -> Sequence[Source]:
        return ()


def thirty_orders() -> list[dict[str, Any]]:
    """Return a list: its length is known."""
    return [{"order": f"o-{number}", "amount": number / 4} for number in range(30)]


def streamed_orders() -> Iterator[dict[str, Any]]:
    """Return a generator: its length is not known."""
    yield from thirty_orders()


def no_orders() -> list[dict[str, Any]]:
    """Return nothing to read."""
    return []


def a_number() -> Any:
    """Return what is no iterable."""
    return 7


class TestIterableSource(SourceContract):
    @pytest.fixture(params=[thirty_orders, streamed_orders])
    def records(self, request: pytest.FixtureRequest) -> Callable[[], Any]:
        function: Callable[[], Any] = request.param
        return function

    @pytest.fixture(params=["order", None])
    @override
    def source(self, request: pytest.FixtureRequest, records: Callable[[], Any]) -> Source:
        return IterableSource(records=records, key=request.param)

    @pytest.fixture
    @override
    def expected(self, source: IterableSource) -> Sequence[tuple[str, bytes]]:
        return [
            (fields["order"] if source.key else str(position), msgspec.json.encode(fields))
            for position, fields in enumerate(thirty_orders(), start=1)
        ]

    @pytest.fixture
    @override
    def refused(self) -> Sequence[Source]:
        return (IterableSource(records=a_number),)


class TestEmptyIterableSource(TestIterableSource):
    @pytest.fixture
    @override
    def source(self) -> Source:
        return IterableSource(records=no_orders)

    @pytest.fixture
    @override
    def expected(self) -> Sequence[tuple[str, bytes]]:
        return []


# One row per (day, number), some days with many rows and some with one, as text, number and bytes.
DAYS = ["2026-01-01"] * 13 + ["2026-01-02"] + ["2026-01-03"] * 11 + ["2026-01-04"] * 2
ROWS = [(number, day, number / 8, b"\x00\xff" * (number % 3)) for number, day in enumerate(DAYS, start=1)]
SETTINGS = SqlSource(conn_id="shop", table="orders")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Make a database with one table to read, and one that cannot be read."""
    path = tmp_path / "shop.db"
    database = sqlite3.connect(path)
    database.execute(
        "CREATE TABLE orders (number INTEGER PRIMARY KEY, day TEXT NOT NULL, amount REAL, seal BLOB)"
    )
    database.execute("CREATE UNIQUE INDEX by_day ON orders (day, number)")
    database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", ROWS)
    database.execute("CREATE TABLE keyless (day TEXT, number INTEGER UNIQUE)")
    database.execute("INSERT INTO keyless VALUES ('2026-01-01', NULL)")
    database.commit()
    database.close()
    return path


def expected_orders(source: SqlSource) -> list[tuple[str, bytes]]:
    """Return id and body of each order that the source gives."""
    return [
        (
            f'["{day}",{number}]' if source.key else str(number),
            msgspec.json.encode({"number": number, "day": day, "amount": amount, "seal": seal}),
        )
        for number, day, amount, seal in ROWS
        if source.where is None or day != "2026-01-02"
    ]


class TestSqlSource(SourceContract):
    @pytest.fixture
    @override
    def context(self, shop: Path) -> OpenContext:
        # With sqlite3's own thread check left on: it finds a connection that leaves its thread.
        connections = FakeConnections({"shop": lambda: sqlite3.connect(f"file:{shop}?mode=ro", uri=True)})
        return OpenContext(connections=connections, timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC))

    @pytest.fixture(
        params=[
            pytest.param({}, id="primary key"),
            pytest.param({"descending": ("number",)}, id="backwards"),
            pytest.param({"key": ("day", "number")}, id="composite"),
            pytest.param({"key": ("day", "number"), "descending": ("day",)}, id="both ways"),
            pytest.param({"key": ("day", "number"), "where": "day <> '2026-01-02'"}, id="where"),
        ]
    )
    @override
    def source(self, request: pytest.FixtureRequest) -> Source:
        return dataclasses.replace(SETTINGS, **request.param)

    @pytest.fixture
    @override
    def expected(self, source: SqlSource) -> Sequence[tuple[str, bytes]]:
        return expected_orders(source)

    @pytest.fixture
    @override
    def refused(self) -> Sequence[Source]:
        return (
            dataclasses.replace(SETTINGS, conn_id="unknown"),
            dataclasses.replace(SETTINGS, table="order"),
            dataclasses.replace(SETTINGS, columns=("number", "dya")),
            dataclasses.replace(SETTINGS, key=("day",)),
            dataclasses.replace(SETTINGS, key=("dya", "number")),
            dataclasses.replace(SETTINGS, descending=("day",)),
            dataclasses.replace(SETTINGS, where="dya = 1"),
            dataclasses.replace(SETTINGS, where="AND day = 1"),
            dataclasses.replace(SETTINGS, table="keyless"),
            dataclasses.replace(SETTINGS, table="keyless", key=("number",)),
        )


@pytest.mark.postgres
class TestPostgresSource(TestSqlSource):
    @pytest.fixture
    @override
    def context(self, postgres_server: PostgresServer, database: str) -> OpenContext:
        postgres_server.run(
            "CREATE TABLE orders (number int PRIMARY KEY, day text NOT NULL, amount float8, seal bytea)",
            "CREATE UNIQUE INDEX by_day ON orders (day, number)",
            "CREATE TABLE keyless (day text, number int UNIQUE)",
            "INSERT INTO keyless VALUES ('2026-01-01', NULL)",
            database=database,
        )
        with postgres_server.connect(database) as connection, connection.cursor() as cursor:
            cursor.executemany("INSERT INTO orders VALUES (%s, %s, %s, %s)", ROWS)
        connections = FakeConnections({"shop": lambda: postgres_server.connect(database)})
        return OpenContext(connections=connections, timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC))

    @pytest.fixture
    @override
    def expected(self, source: SqlSource) -> Sequence[tuple[str, bytes]]:
        # PostgreSQL writes 1.0 as 1: both are the same number.
        return [(name, body.replace(b'.0,"seal', b',"seal')) for name, body in expected_orders(source)]
