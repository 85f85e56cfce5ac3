"""SQLite, through Python's own driver."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from typing_extensions import override

from airflow_batchkit.connectors.encoding import UnreadableText
from airflow_batchkit.connectors.sql.dialect import Column, Dialect, RowFormat, Table, UniqueKey
from airflow_batchkit.connectors.sql.errors import classify_sqlite
from airflow_batchkit.connectors.sql.rows import EncodedRows
from airflow_batchkit.engine.exceptions import BatchkitError, UsageError
from airflow_batchkit.engine.types import Total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_batchkit.engine.policies import Timeouts

_STEPS_BETWEEN_LOOKS = 20_000
# https://www.sqlite.org/datatype3.html, 3.1: the rules are asked in this order, and TEXT comes before REAL.
_TEXT_OR_BLOB = re.compile(r"CHAR|CLOB|TEXT|BLOB")
_HIDDEN_IN_VIRTUAL_TABLE = 1


class SqliteDialect(Dialect):
    """SQLite 3.30 or later."""

    @property
    @override
    def nulls_are_largest(self) -> bool:
        return False

    @override
    def prepare(self, connection: sqlite3.Connection, *, job: str, timeouts: Timeouts) -> None:
        """Do nothing: a file knows neither."""

    @override
    def product(self, connection: sqlite3.Connection) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    @override
    def address(self, connection: sqlite3.Connection) -> str:
        return f"sqlite://{quote(_file(connection))}"

    @property
    @override
    def errors(self) -> type[Exception]:
        return sqlite3.Error

    @override
    def quote(self, identifier: str) -> str:
        return '"' + identifier.replace('"', '""') + '"'

    @override
    def compared(self, table: Table, column: Column, collation: str | None) -> str:
        name = self._qualified(table, column.name)
        return name if collation is None else f"{name} COLLATE {self.quote(collation)}"

    @override
    def parameter(self, number: int, column: Column) -> str:
        return "?"

    @override
    def row_format(self, table: Table, columns: Sequence[Column], key: Sequence[Column]) -> RowFormat:
        return EncodedRows(columns, key, quote=lambda name: self._qualified(table, name))

    def _qualified(self, table: Table, column: str) -> str:
        # Alone, the name of a column that is gone is taken for a text (https://www.sqlite.org/quirks.html#dblquote).
        return f"{table.name}.{self.quote(column)}"

    @override
    @contextlib.contextmanager
    def stream(
        self, connection: sqlite3.Connection, query: str, parameters: Sequence[Any]
    ) -> Iterator[sqlite3.Cursor]:
        with contextlib.closing(connection.cursor()) as cursor:
            yield cursor.execute(query, parameters)

    @override
    @contextlib.contextmanager
    def any_text(self, connection: sqlite3.Connection) -> Iterator[None]:
        connection.text_factory = _text
        try:
            yield
        finally:
            connection.text_factory = str

    @override
    def table(self, connection: sqlite3.Connection, name: str) -> Table:
        known = connection.execute("SELECT type FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        if known is None or known[0] not in {"table", "view"}:
            tables = [
                row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            raise UsageError(
                f"there is no table {name!r}; there are {', '.join(sorted(tables)[:20]) or 'none'}"
            )
        rows = connection.execute("SELECT * FROM pragma_table_xinfo(?)", (name,)).fetchall()
        rows = [row for row in rows if row[6] != _HIDDEN_IN_VIRTUAL_TABLE]
        in_key = [row[1] for row in sorted(rows, key=lambda row: row[5]) if row[5]]
        unique_keys = list(_unique_keys(connection, name))
        primary = next((key for key in unique_keys if list(key.columns) == in_key), None)
        rowid_alias = None
        if in_key and primary is None:
            # INTEGER PRIMARY KEY has no index of its own: it is the table.
            rowid_alias = in_key[0]
            primary = UniqueKey(columns=(rowid_alias,), collations={})
            unique_keys.append(primary)
        return Table(
            identity=(_file(connection), name),
            name=self.quote(name),
            columns=tuple(
                Column(
                    name=row[1],
                    type=row[2],
                    nullable=not row[3] and row[1] != rowid_alias,
                    numeric=bool(row[2]) and not _is_text(row[2]),
                )
                for row in rows
            ),
            primary_key=primary,
            unique_keys=tuple(unique_keys),
        )

    @override
    def still_there(self, connection: sqlite3.Connection, table: Table) -> bool:
        return True  # a table of SQLite has nothing of its own but its name

    @override
    def sorts(self, connection: sqlite3.Connection, query: str, parameters: Sequence[Any]) -> bool:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", parameters)
        return any(row[3] == "USE TEMP B-TREE FOR ORDER BY" for row in plan)

    @override
    def total(
        self, connection: sqlite3.Connection, *, count: str, matching: str, parameters: Sequence[Any]
    ) -> Total:
        return Total(records=connection.execute(count, parameters).fetchone()[0])

    @override
    @contextlib.contextmanager
    def limited(
        self, connection: sqlite3.Connection, seconds: float, cancelled: Callable[[], bool]
    ) -> Iterator[None]:
        until = time.monotonic() + seconds
        connection.set_progress_handler(lambda: cancelled() or time.monotonic() > until, _STEPS_BETWEEN_LOOKS)
        try:
            yield
        finally:
            # A closed connection has no handler any more, and says so.
            with contextlib.suppress(sqlite3.ProgrammingError):
                connection.set_progress_handler(None, 0)

    @override
    def interrupt(self, connection: sqlite3.Connection) -> None:
        with contextlib.suppress(sqlite3.Error):
            connection.interrupt()

    @override
    def close(self, connection: sqlite3.Connection) -> None:
        with contextlib.suppress(sqlite3.Error):
            connection.close()

    @override
    def classify(self, error: Exception) -> BatchkitError:
        return classify_sqlite(error)


def _file(connection: sqlite3.Connection) -> str:
    (file,) = connection.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()
    return str(file)


def _text(raw: bytes) -> str | UnreadableText:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return UnreadableText(raw)


def _unique_keys(connection: sqlite3.Connection, table: str) -> Iterator[UniqueKey]:
    for _, index, unique, _, partial in connection.execute("SELECT * FROM pragma_index_list(?)", (table,)):
        if not unique or partial:
            continue
        columns = connection.execute(
            "SELECT name, coll FROM pragma_index_xinfo(?) WHERE key = 1", (index,)
        ).fetchall()
        # A nameless column is an expression.
        if any(name is None for name, _ in columns):
            continue
        declared = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (index,)).fetchone()
        # An index compares as its columns do unless it says otherwise. Only then must the query say it too:
        # with COLLATE in it, SQLite no longer seeks by several columns at once.
        own = "COLLATE" in (declared[0] or "").upper() if declared else False
        yield UniqueKey(columns=tuple(name for name, _ in columns), collations=dict(columns) if own else {})


def _is_text(declared_type: str) -> bool:
    declared = declared_type.upper()
    return "INT" not in declared and _TEXT_OR_BLOB.search(declared) is not None
