"""Reads a table page by page in the order of a unique key; each page is a query of its own."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from typing_extensions import override

from airflow_batchkit.connectors.sql.clauses import check_where
from airflow_batchkit.connectors.sql.errors import UnreadableTextError
from airflow_batchkit.connectors.sql.keys import Key, check_order, from_cursor, identity, to_cursor
from airflow_batchkit.connectors.sql.queries import queries_for
from airflow_batchkit.connectors.sql.session import Session
from airflow_batchkit.engine.exceptions import (
    PermanentError,
    RecordError,
    TransientError,
    UsageError,
)
from airflow_batchkit.engine.resumption import HOW_TO_RESTART
from airflow_batchkit.engine.types import (
    Cursor,
    Page,
    Record,
    Sizing,
    Total,
    UnreadableRecord,
    record_size,
)
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from airflow_batchkit.connectors.sql.dialect import Table
    from airflow_batchkit.connectors.sql.queries import Queries
    from airflow_batchkit.engine.source import OpenContext

FIRST_PAGE_ROWS = 100
MAX_GROWTH = 4


@dataclass(frozen=True, kw_only=True, repr=False)
class SqlSource(Value):
    """A table of a SQL database, read in the order of a unique key.

    Each page is a ``SELECT … WHERE key > … ORDER BY key LIMIT …`` of its own: no transaction stays open, and
    a run is resumed after any row. Rows that are inserted, changed or deleted while it runs are seen as they
    are when their page is read.

    A record is a JSON object with the columns in their order: numbers with all their digits, bytes as base64,
    dates and times as ISO 8601 text; ``docs/sql-source.md`` has every type. A row that has no exact form in
    JSON (in SQLite: an infinity, text that is not UTF-8) becomes a dead letter. Its id is the key: a single
    value as text, several as a JSON array (``[7,"b"]``).

    :param conn_id: connection to the database: SQLite or PostgreSQL.
    :param table: name of the table, exactly as the database spells it; templated. On PostgreSQL also
        ``schema.table``, and a view, for which ``key`` is needed.
    :param columns: which columns to read. Default: all.
    :param where: condition in SQL, for example ``"day = '{{ ds }}'"``; templated. What changes from page to
        page (``now()``, ``CURRENT_DATE``) is refused. Default: the whole table.
    :param key: columns that are unique together; those that make them so hold no NULL. Default: the primary
        key.
    :param descending: those columns of the key that go down. Default: none.
    :param nulls_first: those columns of the key whose NULLs come first. Default: as the database orders
        them: SQLite takes NULL for smaller, PostgreSQL for larger than everything else.
    :param nulls_last: those columns of the key whose NULLs come last. Default: see ``nulls_first``.
    """

    __templated__: ClassVar[tuple[str, ...]] = ("table", "where")

    conn_id: str = "sqlite_default"
    table: str
    columns: Sequence[str] | None = None
    where: str | None = None
    key: Sequence[str] = ()
    descending: Sequence[str] = ()
    nulls_first: Sequence[str] = ()
    nulls_last: Sequence[str] = ()

    @override
    def check(self) -> None:
        """Refuse what fits no table.

        :raises UsageError: which field, and why.
        """
        if not self.table:
            raise UsageError("SqlSource(table=''): must name a table (was a variable missing?)")
        for name in ("columns", "key", "descending", "nulls_first", "nulls_last"):
            columns = getattr(self, name)
            if isinstance(columns, str):
                raise UsageError(f"SqlSource({name}={columns!r}): must be a list of columns, not a text")
            if columns is not None and len(set(columns)) < len(columns):
                raise UsageError(f"SqlSource({name}={list(columns)}): names a column twice")
        if self.columns is not None and not self.columns:
            raise UsageError("SqlSource(columns=[]): must name a column; leave it out to read all")
        if both := set(self.nulls_first) & set(self.nulls_last):
            raise UsageError(f"SqlSource: the NULLs of {sorted(both)} cannot come both first and last")
        if self.where is not None:
            check_where(self.where)

    def open(self, context: OpenContext) -> OpenSqlSource:
        """Look at the table and count its rows, or estimate them.

        :raises UsageError: no such table or column, no unique key, NULL in the key, or a wrong ``where``.
        :raises TransientError: the database does not answer in time.
        """
        return OpenSqlSource(self, context)


class OpenSqlSource:
    """An open :class:`SqlSource`; each reader has a connection of its own."""

    def __init__(self, settings: SqlSource, context: OpenContext) -> None:
        self._settings = settings
        self._context = context
        self._lock = threading.Lock()
        self._sessions: set[Session] = set()
        self._closed = False
        with self._session() as session:
            self._product = session.product
            context.log.info("looking at table %s in %s", settings.table, self._product)
            self._table = session.table(settings.table)
            self._queries = queries_for(settings, self._table, session.dialect)
            self._fingerprints = _fingerprints(self._table, self._queries)
            self._start = None if context.start_at is None else self._queries.starting_key(context.start_at)
            self._check_keys(session)
            self._total = self._count(session)

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Database and table, the table's columns, what is read of them, and in which order."""
        return self._fingerprints

    @property
    def partitions(self) -> Sequence[str]:
        """One: the table."""
        return (re.sub(r"[^A-Za-z0-9._-]", "_", self._settings.table),)

    @property
    def total(self) -> Total | None:
        """The rows that were there at the run's start; None where counting took too long."""
        return self._total

    @property
    def environment(self) -> Mapping[str, Any]:
        """Product and version, table, key."""
        return {
            "source": "sql",
            "database": self._product,
            "table": self._settings.table,
            "order": self._queries.keyset.order_by,
            "rows": None if self._total is None else self._total.records,
        }

    @property
    def state(self) -> Mapping[str, Any]:
        """The count, so that the next leg need not count again."""
        return {} if self._total is None else {"total": self._total.records, "exact": self._total.exact}

    def read(self, partition: int, after: Cursor | None, sizing: Sizing) -> Iterator[Page]:
        """Deliver the rows page by page, in the key's order.

        :raises TransientError: the database does not answer in time, or the source was closed.
        :raises OrderError: the rows do not come in the key's order.
        :raises PermanentError: a row's key cannot be read, or another table was put in this one's place.
        """
        del partition
        key = None if after is None else from_cursor(after["key"])
        rows = min(FIRST_PAGE_ROWS, sizing.first_page_records)
        with self._session() as session:
            while True:
                rows = min(rows, sizing.page_records)
                page, keys, whole = self._page(session, key, rows, sizing.page_bytes)
                self._check_table(session)
                if keys:
                    key = keys[-1]
                    yield page
                if whole and len(keys) < rows:
                    return
                fitting = sizing.page_bytes * len(keys) // max(1, page.nbytes)
                rows = max(1, min(fitting, rows * MAX_GROWTH))

    def close(self) -> None:
        """End every query that runs; readers fail at their next page."""
        with self._lock:
            self._closed = True
            for session in self._sessions:
                session.cancel()

    def _page(
        self, session: Session, after: Key | None, rows: int, max_bytes: int
    ) -> tuple[Page, list[Key], bool]:
        """Read one page; the last of the answer tells whether the database's answer was read to its end."""
        try:
            return self._read_page(session, after, rows, max_bytes)
        except UnreadableTextError:
            # Once more, with a call for each text: that is only worth its time where one cannot be decoded.
            with session.any_text():
                return self._read_page(session, after, rows, max_bytes)

    def _read_page(
        self, session: Session, after: Key | None, rows: int, max_bytes: int
    ) -> tuple[Page, list[Key], bool]:
        rows_of, columns = self._queries.rows, self._queries.keyset.columns
        seen_again = after if self._queries.overlapping else None
        records: list[Record] = []
        keys: list[Key] = []
        nbytes, whole = 0, True
        with session.bounded(), contextlib.closing(self._rows(session, after, rows)) as answer:
            for row in answer:
                if len(keys) == rows:
                    continue  # the row that pages share was gone, and one more came instead
                key = rows_of.key(row)
                if key == seen_again:
                    seen_again = None
                    continue
                before = keys[-1] if keys else after
                check_order(before, key, columns)
                records.append(self._record(key, row, before))
                keys.append(key)
                nbytes += record_size(records[-1])
                # The rows' size is only known when they come: what is too much comes again in the next page.
                if nbytes >= max_bytes:
                    whole = False
                    break
        page = Page(records, nbytes, cursor_at=lambda index: {"key": to_cursor(keys[index])})
        return page, keys, whole

    def _check_table(self, session: Session) -> None:
        if not session.still_there(self._table):
            raise PermanentError(
                f"table {self._settings.table!r} is another table than when the run began (renamed, or made "
                f"anew): nothing of it is published. Put the older one back to go on; {HOW_TO_RESTART}"
            )

    def _record(self, key: Key, row: Sequence[Any], before: Key | None) -> Record:
        try:
            name = identity(key)
        except RecordError as error:
            place = "the first row" if before is None else f"the row after {identity(before)}"
            raise PermanentError(
                f"{place} of table {self._settings.table!r} cannot be named: its key {error}; mend it, or "
                "leave it out with where=…"
            ) from error
        try:
            return Record(name, self._queries.rows.body(row))
        except RecordError as error:
            message = (
                f"{error}; mend the row, or leave it out with where=…, or its column with columns=…, "
                "and run the export again"
            )
            return UnreadableRecord(name, self._queries.rows.salvaged(row), message=message)

    def _rows(self, session: Session, after: Key | None, limit: int) -> Generator[Sequence[Any], None, None]:
        if after is not None and self._queries.overlapping:
            limit += 1
        for predicate, parameters in self._stages(after):
            with contextlib.closing(session.rows(self._queries.page(predicate, limit), parameters)) as rows:
                for row in rows:
                    limit -= 1
                    yield row
            if not limit:
                return

    def _stages(self, after: Key | None) -> Sequence[tuple[str | None, list[Any]]]:
        if after is not None:
            return self._queries.stages_after(after)
        return self._from_the_start

    @property
    def _from_the_start(self) -> Sequence[tuple[str | None, list[Any]]]:
        return [(None, [])] if self._start is None else self._queries.keyset.starting_at(self._start)

    def _check_keys(self, session: Session) -> None:
        """Look for NULL in the key, which no predicate would find again, and for an index for the order."""
        query = self._queries.null_keys()
        if query is not None and session.first(query) is not None:
            raise UsageError(
                f"table {self._settings.table!r} holds rows with NULL in its key "
                f"({', '.join(self._queries.never_null)}); leave them out with where=…"
            )
        if session.sorts(self._queries.page(None, FIRST_PAGE_ROWS), []):
            self._context.log.warning(
                "no index of table %s serves ORDER BY %s: the database sorts the whole table for each page",
                self._settings.table,
                self._queries.keyset.order_by,
            )

    def _count(self, session: Session) -> Total | None:
        state = self._context.state
        if "total" in state:
            return Total(records=int(state["total"]), exact=bool(state.get("exact", True)))
        self._context.log.info("counting the rows of table %s", self._settings.table)
        queries = self._queries
        try:
            # The stages share no row.
            totals = [
                session.total(
                    count=queries.count(predicate),
                    matching=queries.matching(predicate),
                    parameters=parameters,
                )
                for predicate, parameters in self._from_the_start
            ]
        except TransientError as error:
            self._context.log.warning("the number of rows stays unknown: %s", error)
            return None
        return Total(
            records=sum(total.records for total in totals), exact=all(total.exact for total in totals)
        )

    @contextlib.contextmanager
    def _session(self) -> Iterator[Session]:
        session = Session(self._context, self._settings.conn_id)
        try:
            with self._lock:
                self._sessions.add(session)
                if self._closed:
                    raise TransientError("a table was to be read when the source was closed")
            yield session
        finally:
            with self._lock:
                self._sessions.discard(session)
            session.close()


def _fingerprints(table: Table, queries: Queries) -> dict[str, str]:
    columns = [(column.name, column.type) for column in table.columns]
    # A collation whose version changes (a new C library) may order the same texts in another way.
    collations = [column.collation for column in queries.key if column.collation]
    return {
        "source": _short_hash(table.identity),
        "schema": _short_hash([*columns, table.definition] if table.definition else columns),
        "query": _short_hash([queries.columns, queries.where]),
        "sort": _short_hash([queries.keyset.order_by, *collations]),
    }


def _short_hash(facts: Sequence[Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:16]
