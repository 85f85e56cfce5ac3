"""200,000 made-up orders in a SQLite file, the same in every demo; some of them are poisoned."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

_POISONED = 23
_SEED = 20_261_123
_CUSTOMERS = ("Ada", "Björk", "Çelik", "Dvořák", "Émile", "Fatima", "Grace", "Hana", "İpek", "Jürgen")
_CURRENCIES = ("EUR", "CHF", "GBP", "SEK", "TRY")


def make_orders(file: Path, *, count: int) -> int:
    """Make the file.

    :param count: orders in it.
    :returns: how many of them are poisoned: their amount is no number.
    """
    chance = random.Random(_SEED)
    poisoned = frozenset(chance.sample(range(1, count + 1), min(_POISONED, count)))
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(
            "CREATE TABLE orders "
            "(id INTEGER PRIMARY KEY, customer TEXT, amount TEXT, currency TEXT, created_at TEXT)"
        )
        database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", _rows(chance, count, poisoned))
    return len(poisoned)


def order_ids(file: Path) -> set[int]:
    """Return the ids of all orders in the file."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return {order_id for (order_id,) in database.execute("SELECT id FROM orders")}


def _rows(chance: random.Random, count: int, poisoned: frozenset[int]) -> Iterator[tuple[object, ...]]:
    for number in range(1, count + 1):
        day = 1 + number * 30 // (count + 1)
        yield (
            number,
            chance.choice(_CUSTOMERS),
            "twelve" if number in poisoned else f"{chance.randrange(199, 99900) / 100:.2f}",
            chance.choice(_CURRENCIES),
            f"2026-11-{day:02d}T{number % 24:02d}:{number % 60:02d}:00Z",
        )
