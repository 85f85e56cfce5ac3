"""The demo's orders are the same every time, and as the embedded example expects them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from airflow_batchkit.cli.demo.orders import make_orders, order_ids

if TYPE_CHECKING:
    from pathlib import Path


def rows(file: Path) -> list[tuple[object, ...]]:
    """Return all rows."""
    with closing(sqlite3.connect(file)) as database:
        return list(
            database.execute("SELECT id, customer, amount, currency, created_at FROM orders ORDER BY id")
        )


def test_orders_are_the_same_every_time(tmp_path: Path) -> None:
    """Two demos make the same orders, with the same ones poisoned, and each id once."""
    poisoned = [make_orders(tmp_path / name, count=3000) for name in ("a.db", "b.db")]
    first = rows(tmp_path / "a.db")
    assert first == rows(tmp_path / "b.db")
    assert poisoned == [23, 23]
    assert sum(row[2] == "twelve" for row in first) == 23
    assert order_ids(tmp_path / "a.db") == set(range(1, 3001))
