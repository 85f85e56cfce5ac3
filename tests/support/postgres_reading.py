"""What tests do with a PostgreSQL source: open it, read it to its end, run it as a job."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_batchkit.connectors.sql import SqlSource
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.source import OpenContext, OpenSource
from airflow_batchkit.engine.types import Sizing
from airflow_batchkit.testing.doubles import FakeConnections

if TYPE_CHECKING:
    from collections.abc import Generator

    from airflow_batchkit.engine.types import Page
    from tests.support.postgres import PostgresServer

SMALL_PAGES = Sizing(batch_records=None, batch_bytes=1024, page_records=3)
LARGE_PAGES = Sizing(batch_records=None, batch_bytes=1 << 24)


class Shop:
    """
    A database of a test's own, and how the source reaches it.

    :param server: where it is
    :param database: its name
    """

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.server = server
        self.database = database

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as another session would; return the rows of the last one."""
        return self.server.run(*statements, database=self.database)

    @property
    def connections(self) -> FakeConnections:
        """Connections as the package makes them, under the name ``shop``."""
        return FakeConnections({"shop": lambda: self.server.connect(self.database)})

    def context(self, **changes: Any) -> OpenContext:
        """Return what the source is opened with."""
        context = OpenContext(
            connections=self.connections, timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC)
        )
        return replace(context, **changes)

    def opened(self, source: SqlSource, **changes: Any) -> OpenSource:
        """Open the source; ``changes`` are of its context."""
        return source.open(self.context(**changes))

    def pages(
        self, source: SqlSource, sizing: Sizing = SMALL_PAGES, **changes: Any
    ) -> Generator[Page, None, None]:
        """Read the source page by page, and close it."""
        opened = self.opened(source, **changes)
        try:
            yield from opened.read(0, None, sizing)
        finally:
            opened.close()

    def ids(self, source: SqlSource, sizing: Sizing = SMALL_PAGES, **changes: Any) -> list[str]:
        """Return the ids of all records, in their order."""
        return [record.id for page in self.pages(source, sizing, **changes) for record in page.records]

    def orders(self) -> list[dict[str, Any]]:
        """Return what an export of :func:`fill` has to hold now, in the order of the key."""
        rows = self.run("SELECT id, day::text, note FROM orders ORDER BY orders.day, orders.id")
        return [dict(zip(("id", "day", "note"), row, strict=True)) for row in rows]

    def bodies(self, source: SqlSource, **changes: Any) -> list[bytes]:
        """Return the bodies of all records, in their order."""
        return [bytes(record.body) for page in self.pages(source, **changes) for record in page.records]


def table(name: str, **settings: Any) -> SqlSource:
    """Return a source that reads a table of the shop."""
    return SqlSource(conn_id="shop", table=name, **settings)


ORDERS = table("orders", key=("day", "id"))


def fill(rows: int, *, note: str = "'note ' || i") -> tuple[str, ...]:
    """Return statements that make orders over seven days.

    :param note: what each has to say, in SQL, by its number ``i``.
    """
    values = f"SELECT i, date '2026-01-01' + i*i % 7, {note} FROM generate_series(1, {rows}) i"  # noqa: S608  # a test's own text
    return (
        "CREATE TABLE orders (id int NOT NULL, day date NOT NULL, note text, PRIMARY KEY (day, id))",
        f"INSERT INTO orders {values}",
        "ANALYZE orders",
    )
