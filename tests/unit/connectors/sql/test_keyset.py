"""The stages after a key hold exactly the rows behind it, in order, whichever way the columns go."""

from __future__ import annotations

import itertools
import sqlite3
from typing import Literal, TypeAlias

import pytest

from airflow_batchkit.connectors.sql.keyset import KeyColumn, Keyset

Nulls: TypeAlias = Literal["none", "first", "last"]

ROWS = list(itertools.product((1, 2, 3), ("a", "b"), (10, 20)))


def column(name: str, *, descending: bool = False, nulls: Nulls = "none") -> KeyColumn:
    """Make a column of a key as SQLite compares it."""
    order = f'"{name}" DESC' if descending else f'"{name}"'
    if nulls != "none":
        order += f" NULLS {nulls.upper()}"
    return KeyColumn(
        expression=f'"{name}"',
        parameter=lambda number: f"?{number}",
        descending=descending,
        nulls=nulls,
        order=order,
    )


def keyset(*descending: bool) -> Keyset:
    """Make a keyset of three columns."""
    columns = zip("abc", descending, strict=True)
    return Keyset(columns=tuple(column(name, descending=down) for name, down in columns))


@pytest.fixture
def database() -> sqlite3.Connection:
    """Make a table with every combination of a few values."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE t (a, b, c, UNIQUE (a, b, c))")
    database.executemany("INSERT INTO t VALUES (?, ?, ?)", ROWS)
    return database


DIRECTIONS = list(itertools.product((False, True), repeat=3))


@pytest.mark.parametrize("descending", DIRECTIONS)
def test_stages_give_the_rows_behind_each_key(
    database: sqlite3.Connection, descending: tuple[bool, bool, bool]
) -> None:
    """Stage after stage, the rows strictly behind a key come in the order of the whole table."""
    keys = keyset(*descending)
    whole = database.execute(f"SELECT a, b, c FROM t ORDER BY {keys.order_by}").fetchall()  # noqa: S608  # a test's own text
    assert len(whole) == len(ROWS)
    for position, key in enumerate(whole):
        behind = [
            row
            for predicate, parameters in keys.after(key)
            for row in database.execute(
                f"SELECT a, b, c FROM t WHERE {predicate} ORDER BY {keys.order_by}",  # noqa: S608  # a test's own text
                parameters,
            )
        ]
        assert behind == whole[position + 1 :]
    database.close()


@pytest.mark.parametrize("descending", DIRECTIONS)
@pytest.mark.parametrize("length", [1, 2, 3])
def test_start_is_inclusive_for_any_prefix(
    database: sqlite3.Connection, descending: tuple[bool, bool, bool], length: int
) -> None:
    """A partial run begins with the first row that has the given values; no row is in two of its stages."""
    keys = keyset(*descending)
    whole = database.execute(f"SELECT a, b, c FROM t ORDER BY {keys.order_by}").fetchall()  # noqa: S608  # a test's own text
    prefix = (2, "b", 10)[:length]
    first = next(position for position, row in enumerate(whole) if row[:length] == prefix)
    stages = keys.starting_at(prefix)
    found = [
        row
        for predicate, parameters in stages
        for row in database.execute(
            f"SELECT a, b, c FROM t WHERE {predicate} ORDER BY {keys.order_by}",  # noqa: S608  # a test's own text
            parameters,
        )
    ]
    assert found == whole[first:]
    database.close()


WITH_NULLS = list(itertools.product((1, 2, None), ("a", None), (10, 20)))


@pytest.mark.parametrize("nulls", list(itertools.product(("first", "last"), repeat=2)))
@pytest.mark.parametrize("descending", DIRECTIONS)
def test_nulls_come_on_their_side(nulls: tuple[Nulls, Nulls], descending: tuple[bool, bool, bool]) -> None:
    """Rows with NULL in a key are found behind each key, wherever the order puts them."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE t (a, b, c)")
    database.executemany("INSERT INTO t VALUES (?, ?, ?)", WITH_NULLS)
    sides: tuple[Nulls, ...] = (*nulls, "none")
    keys = Keyset(
        columns=tuple(
            column(name, descending=down, nulls=side)
            for name, down, side in zip("abc", descending, sides, strict=True)
        )
    )
    whole = database.execute(f"SELECT a, b, c FROM t ORDER BY {keys.order_by}").fetchall()  # noqa: S608  # a test's own text
    for position, key in enumerate(whole):
        for stages, wanted in (
            (keys.after(key), whole[position + 1 :]),
            (keys.starting_at(key), whole[position:]),
        ):
            found = [
                row
                for predicate, parameters in stages
                for row in database.execute(
                    f"SELECT a, b, c FROM t WHERE {predicate} ORDER BY {keys.order_by}",  # noqa: S608  # a test's own text
                    parameters,
                )
            ]
            assert found == wanted, key
    database.close()


def test_values_are_always_bound() -> None:
    """No value of a key becomes part of a query's text, and each stage counts its own from one."""
    stages = keyset(*(False, True, False)).after((1, "'; DROP TABLE t", 2))
    assert stages == [
        ('"a" = ?1 AND "b" = ?2 AND "c" > ?3', [1, "'; DROP TABLE t", 2]),
        ('"a" = ?1 AND "b" < ?2', [1, "'; DROP TABLE t"]),
        ('"a" > ?1', [1]),
    ]
