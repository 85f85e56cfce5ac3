"""One connection to the database: bounded, interruptible, its errors told apart."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from airflow_batchkit.connectors.sql.postgres import PostgresDialect
from airflow_batchkit.connectors.sql.sqlite import SqliteDialect
from airflow_batchkit.engine.exceptions import TransientError, UsageError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from contextlib import AbstractContextManager

    from airflow_batchkit.connectors.sql.dialect import Dialect, Table
    from airflow_batchkit.engine.source import OpenContext
    from airflow_batchkit.engine.types import Total

#: By the top-level module of the driver: another database is one class, and one line here.
_DIALECTS: dict[str, type[Dialect]] = {"sqlite3": SqliteDialect, "psycopg": PostgresDialect}


def _dialect_of(driver_object: object) -> Dialect | None:
    """Tell the database by a connection, or by an error, of its driver."""
    dialect = _DIALECTS.get(type(driver_object).__module__.partition(".")[0])
    return dialect() if dialect else None


class Session:
    """A connection of its own for one reader; closing it from another thread ends a query that runs.

    :param context: makes the connection, and knows the time limits.
    :param conn_id: name of the connection.
    :raises UsageError: there is no such connection, or its database is not supported.
    :raises TransientError: the database does not answer.
    """

    def __init__(self, context: OpenContext, conn_id: str) -> None:
        self._log = context.log
        self._limit = context.timeouts.request
        self._cancelled = threading.Event()
        try:
            self._connection = context.connections.client("sql", conn_id, timeouts=context.timeouts)
        except Exception as error:
            dialect = _dialect_of(error)
            if dialect is None:
                raise
            raise dialect.classify(error) from error
        found = _dialect_of(self._connection)
        if found is None:
            driver = type(self._connection).__module__
            raise UsageError(f"connection {conn_id!r} uses {driver}; supported are {', '.join(_DIALECTS)}")
        self.dialect: Dialect = found
        try:
            found.prepare(self._connection, job=context.job, timeouts=context.timeouts)
            #: Where the database is, as the command line's URLs have it; no credentials.
            self.address = found.address(self._connection)
        except found.errors as error:
            self.close()
            raise found.classify(error)  # noqa: B904  # classify() sets the cause

    @property
    def connection(self) -> Any:
        """The driver's connection; use it inside :meth:`bounded` only."""
        return self._connection

    @property
    def product(self) -> str:
        """Name and version of the database."""
        return self.dialect.product(self._connection)

    def table(self, name: str) -> Table:
        """Look at a table.

        :raises UsageError: there is no such table.
        """
        with self.bounded():
            return self.dialect.table(self._connection, name)

    def still_there(self, table: Table) -> bool:
        """Tell whether a table's name still leads to the table that was looked at."""
        with self.bounded():
            return self.dialect.still_there(self._connection, table)

    def sorts(self, query: str, parameters: Sequence[Any]) -> bool:
        """Tell whether the database would sort all rows to answer a query, for want of an index."""
        with self.bounded():
            return self.dialect.sorts(self._connection, query, parameters)

    def total(self, *, count: str, matching: str, parameters: Sequence[Any]) -> Total:
        """Say how many rows a query finds.

        :raises TransientError: it took longer than ``Timeouts.request``.
        :raises UsageError: the database does not understand the query.
        """
        with self.bounded():
            return self.dialect.total(self._connection, count=count, matching=matching, parameters=parameters)

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> Generator[Sequence[Any], None, None]:
        """Run a query inside :meth:`bounded` and give its rows one by one.

        The query ends when the generator is closed.
        """
        started, count = time.monotonic(), 0
        try:
            with self.dialect.stream(self._connection, query, parameters) as answer:
                for row in answer:
                    count += 1
                    yield row
        finally:
            self._log.debug("query: %d rows in %.3f s: %s", count, time.monotonic() - started, query)

    def first(self, query: str, parameters: Sequence[Any] = ()) -> Sequence[Any] | None:
        """Run a query and return its first row, None when it has none."""
        with self.bounded(), contextlib.closing(self.rows(query, parameters)) as rows:
            return next(rows, None)

    def any_text(self) -> AbstractContextManager[None]:
        """Inside the ``with`` block, an ``UnreadableText`` stands for a text that cannot be decoded."""
        return self.dialect.any_text(self._connection)

    def cancel(self) -> None:
        """End what runs; called from another thread."""
        self._cancelled.set()
        self.dialect.interrupt(self._connection)

    def close(self) -> None:
        """Close the connection. Never raises."""
        self.dialect.close(self._connection)

    @contextlib.contextmanager
    def bounded(self) -> Iterator[None]:
        """Bound the queries inside the ``with`` block together; they are one transaction where that matters.

        :raises TransientError: they took longer than ``Timeouts.request``, or the session was closed.
        :raises UsageError: the database does not understand them.
        """
        seconds = self._limit.total_seconds()
        started = time.monotonic()
        if self._cancelled.is_set():
            raise TransientError("the source was closed while it was read")
        try:
            with self.dialect.limited(self._connection, seconds, self._cancelled.is_set):
                yield
        except self.dialect.errors as error:
            if self._cancelled.is_set():
                raise TransientError("the source was closed while it was read") from error
            if time.monotonic() - started >= seconds:
                raise TransientError(f"a query took longer than {seconds:g} s (Timeouts.request)") from error
            raise self.dialect.classify(error)  # noqa: B904  # classify() sets the cause, or hides it where it quotes a row
