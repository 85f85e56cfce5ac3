"""PostgreSQL 13 or later."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from typing_extensions import override

from airflow_batchkit.connectors.sql.dialect import Column, Dialect, RowFormat, Table
from airflow_batchkit.connectors.sql.errors import classify_postgres
from airflow_batchkit.connectors.sql.postgres.catalog import is_named, quoted, table_of
from airflow_batchkit.connectors.sql.postgres.rows import JsonRows, as_parameter
from airflow_batchkit.engine.types import Total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from psycopg import Connection

    from airflow_batchkit.engine.exceptions import BatchkitError
    from airflow_batchkit.engine.policies import Timeouts

# In the planner's units, of which reading 8 KiB in a row is one: up to here a count is a matter of moments.
_CHEAP_COUNT = 25_000.0
# Rows of an answer that are in memory together: fewer cost the client time, more cost memory with fat rows.
_ROWS_AT_ONCE = 16
_SECONDS_TO_CANCEL = 1.0
_SECONDS_OF_GRACE = 2.0
_LONGEST_NAME = 63
# What a role or a database may have set otherwise, and values are written by.
_OUTPUT = (
    "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, MDY'; SET LOCAL IntervalStyle = 'iso_8601'; "
    "SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1; SET LOCAL lc_monetary = 'C'; "
    "SET LOCAL client_encoding = 'UTF8'"
)


class PostgresDialect(Dialect):
    """PostgreSQL through psycopg 3; everything that is asked together is one short read-only transaction.

    Settings are made for that transaction only (``SET LOCAL``), which also holds behind a pooler that gives
    each transaction another connection. Nothing is prepared on the server, for the same reason.
    """

    def __init__(self) -> None:
        self._settings = ""

    @property
    @override
    def errors(self) -> type[Exception]:
        import psycopg

        return psycopg.Error

    @property
    @override
    def nulls_are_largest(self) -> bool:
        return True

    @override
    def prepare(self, connection: Connection[Any], *, job: str, timeouts: Timeouts) -> None:
        from psycopg import sql

        connection.autocommit = True
        connection.prepare_threshold = None
        connection.adapters.register_loader("json", _bytes_loader())
        name = f"batchkit {job}".strip()[:_LONGEST_NAME]
        lock = min(timeouts.read, timeouts.request).total_seconds()
        self._settings = (
            f"SET LOCAL application_name = {sql.Literal(name).as_string(connection)}; "
            f"SET LOCAL lock_timeout = {_milliseconds(lock)}; {_OUTPUT}"
        )

    @override
    def product(self, connection: Connection[Any]) -> str:
        return f"PostgreSQL {connection.info.parameter_status('server_version')}"

    @override
    def address(self, connection: Connection[Any]) -> str:
        # As it was given: of several hosts, all.
        given = {option.keyword: (option.val or b"").decode() for option in connection.pgconn.info}
        host = f"[{given[b'host']}]" if ":" in given[b"host"] else quote(given[b"host"], safe=",")
        return f"postgresql://{host}:{given[b'port']}/{quote(given[b'dbname'], safe='')}"

    @override
    def table(self, connection: Connection[Any], name: str) -> Table:
        return table_of(connection, name)

    @override
    def still_there(self, connection: Connection[Any], table: Table) -> bool:
        return is_named(connection, table)

    @override
    def compared(self, table: Table, column: Column, collation: str | None) -> str:
        expression = _qualified(table, column)
        return expression if collation is None else f"{expression} COLLATE {collation}"

    @override
    def parameter(self, number: int, column: Column) -> str:
        return f"${number}::{column.base}"

    @override
    def quote(self, identifier: str) -> str:
        return quoted(identifier)

    @override
    def row_format(self, table: Table, columns: Sequence[Column], key: Sequence[Column]) -> RowFormat:
        return JsonRows(columns, key, qualified=lambda column: _qualified(table, column), quote=self.quote)

    @override
    @contextlib.contextmanager
    def stream(
        self, connection: Connection[Any], query: str, parameters: Sequence[Any]
    ) -> Iterator[Iterator[Sequence[Any]]]:
        from psycopg import RawCursor, capabilities

        at_once = _ROWS_AT_ONCE if capabilities.has_stream_chunked() else 1
        texts = [as_parameter(value) for value in parameters]
        with RawCursor(connection) as cursor:
            rows = cursor.stream(query.encode(), texts, size=at_once)
            try:
                yield rows
            finally:
                rows.close()  # type: ignore[attr-defined]  # psycopg says Iterator, and gives a generator

    @override
    def any_text(self, connection: Connection[Any]) -> contextlib.AbstractContextManager[None]:
        """Change nothing: the server sends no text that is not UTF-8."""
        return contextlib.nullcontext()

    @override
    def sorts(self, connection: Connection[Any], query: str, parameters: Sequence[Any]) -> bool:
        # A small table is sorted whatever its indexes; told not to, the planner sorts only for want of one.
        connection.execute("SET LOCAL enable_sort = off; SET LOCAL enable_incremental_sort = off")
        plan = self._plan(connection, query, parameters)
        return any(node_type.endswith("Sort") for node_type in _node_types(plan))

    @override
    def total(
        self, connection: Connection[Any], *, count: str, matching: str, parameters: Sequence[Any]
    ) -> Total:
        plan = self._plan(connection, matching, parameters)
        if plan["Total Cost"] > _CHEAP_COUNT:
            return Total(records=int(plan["Plan Rows"]), exact=False)
        return Total(records=self._value(connection, count, parameters))

    @override
    @contextlib.contextmanager
    def limited(
        self, connection: Connection[Any], seconds: float, cancelled: Callable[[], bool]
    ) -> Iterator[None]:
        import psycopg

        # The server ends a query by itself; this is for a server, or a network, that does not answer at all.
        watchdog = threading.Timer(seconds + _SECONDS_OF_GRACE, self.interrupt, [connection])
        watchdog.daemon = True
        watchdog.start()
        limit = _milliseconds(seconds)
        try:
            connection.execute(
                "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; "
                f"SET LOCAL statement_timeout = {limit}; "
                f"SET LOCAL idle_in_transaction_session_timeout = {limit}; {self._settings}".encode()
            )
            yield
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                connection.rollback()
            raise
        finally:
            watchdog.cancel()
            watchdog.join()

    @override
    def interrupt(self, connection: Connection[Any]) -> None:
        import psycopg

        # First a word to the server, which would go on for nobody; then the socket, in case nobody listens.
        with contextlib.suppress(psycopg.Error, OSError):
            connection.cancel_safe(timeout=_SECONDS_TO_CANCEL)
        with (
            contextlib.suppress(psycopg.Error, OSError),
            socket.socket(fileno=os.dup(connection.pgconn.socket)) as line,
        ):
            line.shutdown(socket.SHUT_RDWR)

    @override
    def close(self, connection: Connection[Any]) -> None:
        import psycopg

        with contextlib.suppress(psycopg.Error):
            connection.close()

    @override
    def classify(self, error: Exception) -> BatchkitError:
        return classify_postgres(error)

    def _plan(self, connection: Connection[Any], query: str, parameters: Sequence[Any]) -> dict[str, Any]:
        explained = self._value(connection, f"EXPLAIN (FORMAT JSON) {query}", parameters)
        plan: dict[str, Any] = msgspec.json.decode(explained)[0]["Plan"]
        return plan

    def _value(self, connection: Connection[Any], query: str, parameters: Sequence[Any]) -> Any:
        with self.stream(connection, query, parameters) as rows:
            # Taken to its end: an answer that is left early is cancelled, by a connection made for that.
            ((value,),) = rows
        return value


def _qualified(table: Table, column: Column) -> str:
    return f"{table.name}.{quoted(column.name)}"


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))  # 0 would mean "for ever"


def _node_types(plan: dict[str, Any]) -> Iterator[str]:
    yield plan["Node Type"]
    for child in plan.get("Plans", ()):
        yield from _node_types(child)


def _bytes_loader() -> type[Any]:
    from psycopg.adapt import Loader

    class BytesLoader(Loader):
        """Leaves JSON as the server wrote it."""

        @override
        def load(self, data: bytes | bytearray | memoryview) -> bytes:
            return bytes(data)

    return BytesLoader
