"""What SQLite says about a table: columns, keys, and how they compare."""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.sql.sqlite import SqliteDialect
from airflow_batchkit.engine.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_batchkit.connectors.sql.dialect import Table

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    """Open a database for one test."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    yield connection
    connection.close()


def table_of(database: sqlite3.Connection, *statements: str) -> Table:
    """Make a table named t, and look at it."""
    for statement in statements:
        database.execute(statement)
    return SqliteDialect().table(database, "t")


@pytest.mark.parametrize(
    ("statement", "primary_key"),
    [
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", ("id",)),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY DESC, v)", ("id",)),
        ("CREATE TABLE t (id TEXT PRIMARY KEY, v)", ("id",)),
        ("CREATE TABLE t (a, b, PRIMARY KEY (b, a))", ("b", "a")),
        ("CREATE TABLE t (a, b, PRIMARY KEY (b, a)) WITHOUT ROWID", ("b", "a")),
        ("CREATE TABLE t (a UNIQUE, b)", None),
    ],
)
def test_primary_key_is_found(
    database: sqlite3.Connection, statement: str, primary_key: tuple[str, ...] | None
) -> None:
    """The primary key comes in its own order, also where it has no index of its own."""
    table = table_of(database, statement)
    assert (table.primary_key and table.primary_key.columns) == primary_key


def test_only_whole_unique_indexes_are_keys(database: sqlite3.Connection) -> None:
    """A partial index, one on an expression and one that is not unique say nothing about all rows."""
    table = table_of(
        database,
        "CREATE TABLE t (a, b, c, d)",
        "CREATE UNIQUE INDEX i1 ON t (a) WHERE b = 1",
        "CREATE UNIQUE INDEX i2 ON t (lower(b))",
        "CREATE INDEX i3 ON t (c)",
        "CREATE UNIQUE INDEX i4 ON t (d, c)",
    )
    assert [key.columns for key in table.unique_keys] == [("d", "c")]


def test_nullable_columns_are_known(database: sqlite3.Connection) -> None:
    """In SQLite a primary key may hold NULL, unless it is the rowid or says NOT NULL."""
    table = table_of(database, "CREATE TABLE t (a TEXT NOT NULL, b TEXT, PRIMARY KEY (a, b))")
    assert [column.nullable for column in table.columns] == [False, True]
    database.execute("DROP TABLE t")
    table = table_of(database, "CREATE TABLE t (id INTEGER PRIMARY KEY, b)")
    assert [column.nullable for column in table.columns] == [False, True]


@pytest.mark.parametrize(
    ("declared", "numeric"),
    [
        ("INTEGER", True),
        ("BIGINT", True),
        ("REAL", True),
        ("DECIMAL(10, 2)", True),
        ("DATE", True),
        ("TEXT", False),
        ("VARCHAR(20)", False),
        ("BLOB", False),
        ("", False),
        ("CHARINT", True),
    ],
)
def test_numeric_columns_follow_sqlites_affinity(
    database: sqlite3.Connection, declared: str, numeric: bool
) -> None:
    """Which columns compare text as numbers is SQLite's own rule, by the declared type."""
    assert table_of(database, f"CREATE TABLE t (a {declared})").columns[0].numeric is numeric


def test_generated_columns_are_read(database: sqlite3.Connection) -> None:
    """SELECT * gives generated columns too, so the source does."""
    table = table_of(database, "CREATE TABLE t (a INTEGER PRIMARY KEY, b AS (a * 2))")
    assert [column.name for column in table.columns] == ["a", "b"]


def test_collation_is_kept_where_the_index_has_its_own(database: sqlite3.Connection) -> None:
    """Unique by one comparison and ordered by another, rows would tie and be lost between two pages."""
    table = table_of(
        database,
        "CREATE TABLE t (a TEXT COLLATE NOCASE NOT NULL)",
        "CREATE UNIQUE INDEX i1 ON t (a COLLATE BINARY)",
    )
    assert dict(table.unique_keys[0].collations) == {"a": "BINARY"}
    database.execute("DROP TABLE t")
    table = table_of(database, "CREATE TABLE t (a TEXT COLLATE NOCASE UNIQUE)")
    assert dict(table.unique_keys[0].collations) == {}


def test_unknown_table_names_the_others(database: sqlite3.Connection) -> None:
    """A mistyped name is answered with the names that there are."""
    database.execute("CREATE TABLE orders (a)")
    with pytest.raises(UsageError, match="no table 'order'; there are orders"):
        SqliteDialect().table(database, "order")


@pytest.mark.parametrize("name", ["plain", 'quo"te', "semi;colon", "sp ace", "select", "日次"])
def test_names_are_nothing_but_names(database: sqlite3.Connection, name: str) -> None:
    """A quoted name means that table, whatever it holds."""
    quoted = SqliteDialect().quote(name)
    database.execute(f"CREATE TABLE {quoted} ({quoted} INTEGER PRIMARY KEY)")
    assert SqliteDialect().table(database, name).columns[0].name == name
    assert database.execute(f"SELECT {quoted} FROM {quoted}").fetchall() == []  # noqa: S608  # what is tested


def test_sorting_without_an_index_is_seen(database: sqlite3.Connection) -> None:
    """A query that sorts the whole table is told from one that walks along an index."""
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, day TEXT)")
    dialect = SqliteDialect()
    assert dialect.sorts(database, "SELECT * FROM t ORDER BY day, id LIMIT 5", [])
    assert not dialect.sorts(database, "SELECT * FROM t WHERE id > ? ORDER BY id LIMIT 5", [1])


def test_query_ends_at_its_time_limit(database: sqlite3.Connection) -> None:
    """A query that would run for ever is ended by SQLite itself."""
    started = time.monotonic()
    with (
        pytest.raises(sqlite3.OperationalError, match="interrupted"),
        SqliteDialect().limited(database, 0.05, lambda: False),
    ):
        database.execute(ENDLESS)
    assert time.monotonic() - started < 10
    assert database.execute("SELECT 1").fetchone() == (1,)


def test_query_ends_when_interrupted(database: sqlite3.Connection) -> None:
    """Another thread can end a running query; after the close, nothing happens."""
    dialect, running = SqliteDialect(), threading.Event()
    cancelled = threading.Event()

    def interrupt() -> None:
        running.wait(10)
        cancelled.set()
        dialect.interrupt(database)

    def look() -> bool:
        running.set()
        return cancelled.is_set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(sqlite3.OperationalError, match="interrupted"), dialect.limited(database, 30, look):
        database.execute(ENDLESS)
    thread.join(10)
    dialect.close(database)
    dialect.close(database)
    dialect.interrupt(database)
