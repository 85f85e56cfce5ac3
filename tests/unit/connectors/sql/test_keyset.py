"""The stages after a key hold exactly the rows behind it, in order, whichever way the columns go."""

from __future__ import annotations

import itertools
import sqlite3

import pytest

from airflow_batchkit.connectors.sql.keyset import Keyset, any_of

ROWS = list(itertools.product((1, 2, 3), ("a", "b"), (10, 20)))


def keyset(*descending: bool) -> Keyset:
    """Make a keyset of three columns."""
    return Keyset(columns=('"a"', '"b"', '"c"'), descending=descending, placeholder="?")


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
    """A partial run begins with the first row that has the given values, and counts what it will read."""
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
    predicate, parameters = any_of(stages)
    counted = database.execute(f"SELECT count(*) FROM t WHERE 1 AND {predicate}", parameters).fetchone()  # noqa: S608  # a test's own text
    assert counted == (len(found),)
    database.close()


def test_values_are_always_bound() -> None:
    """No value of a key becomes part of a query's text."""
    stages = keyset(*(False, True, False)).after((1, "'; DROP TABLE t", 2))
    assert stages == [
        ('"a" = ? AND "b" = ? AND "c" > ?', [1, "'; DROP TABLE t", 2]),
        ('"a" = ? AND "b" < ?', [1, "'; DROP TABLE t"]),
        ('"a" > ?', [1]),
    ]
