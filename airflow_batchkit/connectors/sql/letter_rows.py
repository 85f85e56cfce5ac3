"""Dead letters as rows of one table, beside a table of notes that tells which of them count."""

from __future__ import annotations

import contextlib
import secrets
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from typing_extensions import override

from airflow_batchkit.connectors.letters.place import typed_url
from airflow_batchkit.connectors.letters.rows import LetterRow, LetterRows, by_bytes, by_pages
from airflow_batchkit.connectors.patience import patiently
from airflow_batchkit.connectors.sql.errors import missing_right
from airflow_batchkit.connectors.sql.session import Session
from airflow_batchkit.engine.exceptions import TransientError, UsageError
from airflow_batchkit.engine.kept_values import KeptValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow_batchkit.engine.source import OpenContext

T = TypeVar("T")

# For people; what is read back is "letter" and "record".
_SHOWN = ("job", "run", "id", "stage", "error_class", "error_type", "message")
_COLUMNS = ("set_name", "part", "number", "status", *_SHOWN, "at", "replays", "letter", "record")
_NOTE = ("name", "content", "version")


class TableRows(LetterRows):
    """Rows of one table; it is made, with the table of notes, when the first run starts.

    A connection that broke is replaced at the next call. Calls wait for one another.

    :param context: makes connections.
    :param conn_id: name of the connection.
    :param table: name of the table; that of the notes ends in ``_notes``.
    """

    def __init__(self, context: OpenContext, conn_id: str, table: str) -> None:
        self._context = context
        self._conn_id = conn_id
        self._table = table
        self._lock = threading.Lock()
        self._session = Session(context, conn_id)
        self._stale = False
        self._closed = False
        dialect = self._session.dialect
        self._letters = dialect.quote(table)
        self._notes = dialect.quote(self._notes_name)
        self._postgres = self._session.product.startswith("PostgreSQL")
        self._address = self._session.address

    @property
    @override
    def url(self) -> str:
        return typed_url(self._address, self._conn_id if self._postgres else "", table=self._table)

    @override
    def check(self) -> None:
        def look(run: _Run) -> None:
            for name, columns in ((self._table, _COLUMNS), (self._notes_name, _NOTE)):
                there = run.columns(self._quote(name)) if self._is_there(run, name) else columns
                if lacking := [column for column in columns if column not in there]:
                    raise UsageError(
                        f"table {name!r} was not made for dead letters (it has no column {lacking[0]!r}): "
                        "choose another table, or drop it"
                    )

        self._do(look)

    @override
    def create(self) -> None:
        # Asked first: who may write to the tables need not have the right to make some.
        if self._do(lambda run: self._is_there(run, self._table) and self._is_made(run)):
            return
        text = 'text COLLATE "C"' if self._postgres else "TEXT"
        shown = ", ".join(f"{self._quote(name)} text NOT NULL" for name in _SHOWN)
        number = "double precision" if self._postgres else "REAL"
        letters = (
            f"CREATE TABLE IF NOT EXISTS {self._letters} (set_name {text} NOT NULL, part {text} NOT NULL, "
            f"number {text} NOT NULL, status text NOT NULL, {shown}, at {number} NOT NULL, "
            "replays integer NOT NULL, letter text NOT NULL, record text NOT NULL, "
            "PRIMARY KEY (set_name, part, number))"
        )
        notes = (
            f"CREATE TABLE IF NOT EXISTS {self._notes} (name {text} NOT NULL PRIMARY KEY, "
            "content text NOT NULL, version text NOT NULL)"
        )

        def make(run: _Run) -> None:
            if self._postgres:
                # Two that make it at once would fail on the catalogue's own keys.
                run("SELECT pg_advisory_xact_lock(hashtext($1::text))", self._table)
            run(letters)
            run(notes)

        self._do(make, writes=True)

    @override
    def add(self, set_name: str, rows: Iterable[LetterRow]) -> int:
        count = 0
        for some in by_bytes(rows):
            count += len(some)
            self._insert([_values(set_name, row) for row in some])
        return count

    @override
    def read(self, set_name: str, part: str, after: str = "") -> Iterator[LetterRow]:
        query = (
            f"SELECT number, letter, record FROM {self._letters} WHERE {self._of_part} "  # noqa: S608  # a quoted name
            f"AND number > {self._text(3)} ORDER BY number LIMIT "
        )

        def page(number: str, size: int) -> Sequence[LetterRow]:
            found = self._do(lambda run: run(f"{query}{size}", set_name, part, number))
            return [
                LetterRow(part=part, number=row[0], letter=row[1].encode(), record=row[2].encode())
                for row in found
            ]

        return by_pages(page, after)

    @override
    def count(self, set_name: str, part: str) -> int:
        query = (
            f"SELECT count(*) FROM {self._letters} WHERE {self._is('set_name', 1)} AND {self._is('part', 2)}"  # noqa: S608  # a quoted name
        )
        return int(self._do(lambda run: run(query, set_name, part))[0][0])

    @override
    def parts(self, set_name: str) -> list[str]:
        query = f"SELECT DISTINCT part FROM {self._letters} WHERE {self._is('set_name', 1)} ORDER BY part"  # noqa: S608  # a quoted name
        return [row[0] for row in self._do(lambda run: run(query, set_name))]

    @override
    def remove(self, set_name: str, part: str) -> None:
        query = f"DELETE FROM {self._letters} WHERE {self._of_part}"  # noqa: S608  # a quoted name
        self._do(lambda run: run(query, set_name, part), writes=True)

    @override
    def note(self, name: str) -> KeptValue | None:
        query = f"SELECT content, version FROM {self._notes} WHERE {self._is('name', 1)}"  # noqa: S608  # a quoted name
        rows = self._do(lambda run: run(query, name) if self._is_made(run) else [])
        return KeptValue(content=rows[0][0].encode(), version=rows[0][1]) if rows else None

    @override
    def write_note(self, name: str, content: bytes, *, version: str | None) -> str | None:
        new = secrets.token_hex(8)
        insert = (
            f"INSERT INTO {self._notes} (name, content, version) VALUES ({self._texts(3)}) "  # noqa: S608  # a quoted name
            "ON CONFLICT DO NOTHING"
        )
        update = (
            f"UPDATE {self._notes} SET content = {self._text(1)}, version = {self._text(2)} WHERE "  # noqa: S608  # a quoted name
            f"{self._is('name', 3)} AND {self._is('version', 4)}"
        )
        look = f"SELECT version FROM {self._notes} WHERE {self._is('name', 1)}"  # noqa: S608  # a quoted name

        def write(run: _Run) -> bool:
            if version is None:
                run(insert, name, content.decode(), new)
            else:
                run(update, content.decode(), new, name, version)
            # True also where an earlier try was carried out, and its answer lost.
            found = run(look, name)
            return bool(found) and found[0][0] == new

        return new if self._do(write, writes=True) else None

    @override
    def remove_note(self, name: str) -> None:
        query = f"DELETE FROM {self._notes} WHERE {self._is('name', 1)}"  # noqa: S608  # a quoted name
        self._do(lambda run: run(query, name), writes=True)

    @override
    def notes(self, before: str) -> list[str]:
        query = (
            f"SELECT name FROM {self._notes} WHERE substr(name, 1, {len(before)}) = {self._text(1)} "  # noqa: S608  # a quoted name
            "ORDER BY name"
        )
        rows = self._do(lambda run: run(query, before) if self._is_made(run) else [])
        return [row[0] for row in rows]

    @override
    def close(self) -> None:
        self._closed = True
        self._session.cancel()
        self._session.close()

    def _insert(self, values: Sequence[Sequence[Any]]) -> None:
        names = ", ".join(self._quote(name) for name in _COLUMNS)
        casts = {"at": "double precision", "replays": "integer"}
        places = ", ".join(
            f"${number}::{casts.get(name, 'text')}" if self._postgres else f"?{number}"
            for number, name in enumerate(_COLUMNS, start=1)
        )
        query = f"INSERT INTO {self._letters} ({names}) VALUES ({places}) ON CONFLICT DO NOTHING"  # noqa: S608  # quoted names

        def insert(run: _Run) -> None:
            for row in values:
                run(query, *row)

        self._do(insert, writes=True)

    def _is_made(self, run: _Run) -> bool:
        return self._is_there(run, self._notes_name)

    def _is_there(self, run: _Run, table: str) -> bool:
        look = "SELECT to_regclass($1::text)" if self._postgres else _SQLITE_TABLE
        found = run(look, self._quote(table) if self._postgres else table)
        return bool(found) and found[0][0] is not None

    def _do(self, work: Callable[[_Run], T], *, writes: bool = False) -> T:
        """Do something in one transaction, again where that may work."""

        def once() -> T:
            with self._lock:
                session = self._connected()
                try:
                    with session.bounded(), self._transaction(session, writes=writes) as run:
                        return work(run)
                except TransientError:
                    self._stale = True
                    raise

        return patiently(once)

    @contextlib.contextmanager
    def _transaction(self, session: Session, *, writes: bool) -> Iterator[_Run]:
        connection = session.connection
        if self._postgres:
            from psycopg import RawCursor

            with RawCursor(connection) as cursor:
                if writes:
                    cursor.execute(b"SET TRANSACTION READ WRITE")
                yield _Run(cursor)
            return
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            try:
                yield _Run(cursor)
                connection.commit()
            except BaseException:
                connection.rollback()
                raise

    def _connected(self) -> Session:
        if self._stale and not self._closed:
            self._session.close()
            self._session = Session(self._context, self._conn_id)
            self._stale = False
        return self._session

    @property
    def _notes_name(self) -> str:
        return f"{self._table}_notes"

    @property
    def _of_part(self) -> str:
        return f"{self._is('set_name', 1)} AND {self._is('part', 2)}"

    def _quote(self, name: str) -> str:
        return self._session.dialect.quote(name)

    def _text(self, number: int) -> str:
        return f"${number}::text" if self._postgres else f"?{number}"

    def _texts(self, count: int) -> str:
        return ", ".join(self._text(number) for number in range(1, count + 1))

    def _is(self, column: str, number: int) -> str:
        return f"{column} = {self._text(number)}"


_SQLITE_TABLE = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = ?1 COLLATE NOCASE"


class _Run:
    """Runs statements of one transaction and returns their rows."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def __call__(self, statement: str, *parameters: Any) -> list[Sequence[Any]]:
        try:
            self._cursor.execute(statement, parameters)
        except Exception as error:
            named = missing_right(error, statement)
            if named is None:
                raise
            raise named from error
        return [] if self._cursor.description is None else list(self._cursor.fetchall())

    def columns(self, table: str) -> list[str]:
        """Name the columns of a table.

        :param table: its name, quoted.
        """
        self(f"SELECT * FROM {table} LIMIT 0")  # noqa: S608  # a quoted name
        return [column[0] for column in self._cursor.description]


def _values(set_name: str, row: LetterRow) -> list[Any]:
    letter = msgspec.json.decode(row.letter)
    status = "settled" if row.settled else "staged"
    # PostgreSQL's text cannot hold NUL; what is read back has it as an escape.
    shown = [str(letter.get(name, "")).replace("\x00", "\ufffd") for name in _SHOWN]
    return [
        set_name,
        row.part,
        row.number,
        status,
        *shown,
        float(letter["at"]),
        int(letter.get("replays", 0)),
        row.letter.decode(),
        row.record.decode(),
    ]
