"""What tests do with a SQLite source: a file of orders, somebody who changes it, connections to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow_batchkit.connectors.sql import SqlSource
from airflow_batchkit.testing.doubles import FakeConnections

if TYPE_CHECKING:
    from pathlib import Path

ORDERS = SqlSource(conn_id="shop", table="orders", key=("day", "id"))
COLUMNS = ("id", "day", "amount", "note")
_FILL = """
    INSERT INTO orders
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?)
    SELECT i, date('2026-01-01', '+' || (i * i % 7) || ' days'), i / 8.0, printf('%.*c', 100, 'x') FROM n
"""


class SqliteShop:
    """
    A file with orders over seven days.

    :param path: of the file, which is made
    :param rows: how many
    :param wal: write-ahead log, as a live database has it; without, a writer locks readers out
    """

    def __init__(self, path: Path, rows: int, *, wal: bool = True) -> None:
        self.path = path
        with closing(sqlite3.connect(path)) as database, database:
            if wal:
                database.execute("PRAGMA journal_mode = WAL")
            database.execute(
                "CREATE TABLE orders (id INTEGER PRIMARY KEY, day TEXT NOT NULL, amount REAL, note TEXT)"
            )
            database.execute("CREATE UNIQUE INDEX by_day ON orders (day, id)")
            if rows:
                database.execute(_FILL, (rows,))

    def run(self, *statements: str) -> None:
        """Change the database as another process would, in one transaction."""
        with closing(sqlite3.connect(self.path)) as database, database:
            for statement in statements:
                database.execute(statement)

    def orders(self) -> list[dict[str, Any]]:
        """Return what an export has to hold now, in the order of the key."""
        with closing(sqlite3.connect(self.path)) as database:
            rows = database.execute("SELECT * FROM orders ORDER BY day, id").fetchall()
        return [dict(zip(COLUMNS, row, strict=True)) for row in rows]

    def connections(
        self, *, patience: float = 5.0, before: Callable[[str], None] | None = None
    ) -> FakeConnections:
        """
        Make read-only connections, with sqlite3's own check that they stay in their thread.

        :param patience: seconds that a lock is waited for
        :param before: called with each statement before it runs
        """

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=patience)
            connection.set_trace_callback(before)
            return connection

        return FakeConnections({"shop": connect})
