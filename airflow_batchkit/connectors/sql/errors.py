"""Which error of a database is whose business: one table for each."""

from __future__ import annotations

import re
import sqlite3

from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    PermanentError,
    PushbackError,
    TransientError,
    UsageError,
)


class UnreadableTextError(PermanentError):
    """A row among others holds text that the driver cannot decode; nothing says which row it is."""


# By primary result code (https://www.sqlite.org/rescode.html); what is not listed is permanent.
_SQLITE: dict[int, tuple[type[BatchkitError], str]] = {
    sqlite3.SQLITE_ERROR: (UsageError, "check table, columns and where"),
    sqlite3.SQLITE_PERM: (UsageError, "let this user read the file"),
    sqlite3.SQLITE_READONLY: (UsageError, "let this user write beside the file (its WAL index), or copy it"),
    sqlite3.SQLITE_CANTOPEN: (UsageError, "check the path and who may read it"),
    sqlite3.SQLITE_AUTH: (UsageError, "the connection's authorizer forbids this"),
    sqlite3.SQLITE_BUSY: (TransientError, "another process is writing; it is tried again"),
    sqlite3.SQLITE_LOCKED: (TransientError, "another connection is writing; it is tried again"),
    sqlite3.SQLITE_INTERRUPT: (TransientError, "the query was ended; it is tried again"),
    sqlite3.SQLITE_IOERR: (TransientError, "the disk did not answer; it is tried again"),
    sqlite3.SQLITE_SCHEMA: (TransientError, "the table was changed meanwhile; it is tried again"),
    sqlite3.SQLITE_PROTOCOL: (TransientError, "the file's locks are busy; it is tried again"),
    sqlite3.SQLITE_NOMEM: (TransientError, "out of memory; it is tried again"),
    sqlite3.SQLITE_CORRUPT: (PermanentError, "restore the file from a backup"),
    sqlite3.SQLITE_NOTADB: (PermanentError, "the file is no SQLite database"),
}

# By SQLSTATE, or its first two letters (https://www.postgresql.org/docs/current/errcodes-appendix.html); what
# is not listed is permanent.
_POSTGRES: dict[str, tuple[type[BatchkitError], str]] = {
    "08": (TransientError, "the connection broke; it is tried again"),
    "22": (UsageError, "a value does not fit the query: check where, and start_at"),
    "25P03": (TransientError, "the reader was too slow between two rows; it is tried again"),
    "25P04": (TransientError, "the page took too long; it is tried again"),
    "28": (UsageError, "check user, password and pg_hba.conf"),
    "3D": (UsageError, "check the name of the database"),
    "3F": (UsageError, "check the name of the schema"),
    "40001": (TransientError, "the query met a change (on a standby: a vacuum); it is tried again"),
    "40P01": (TransientError, "two sessions waited for each other; it is tried again"),
    "42": (UsageError, "check table, columns, key and where"),
    "42501": (UsageError, "grant SELECT on the table, or name the columns that may be read"),
    "53": (PushbackError, "the server is short of memory, disk or connections; it is tried again later"),
    "55006": (TransientError, "the table is in use; it is tried again"),
    "55P03": (TransientError, "somebody has locked the table; it is tried again"),
    "57014": (TransientError, "the query was ended; it is tried again"),
    "57P01": (TransientError, "the server is shut down; it is tried again"),
    "57P02": (TransientError, "the server crashed; it is tried again"),
    "57P03": (TransientError, "the server is starting; it is tried again"),
    "57P05": (TransientError, "the session was idle for too long; it is tried again"),
    "58": (TransientError, "the server's disk did not answer; it is tried again"),
    "XX001": (PermanentError, "the table is damaged: restore it from a backup"),
    "XX002": (PermanentError, "an index is damaged: rebuild it (REINDEX)"),
}
_MISSING_RIGHT = "42501"
# Whose message speaks of names and of the server. Any other may quote a row.
_SAFE_TO_REPEAT = ("08", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58")
# While connecting, the driver has no SQLSTATE to give, only the server's words.
_POSTGRES_CONNECTING: tuple[tuple[str, type[BatchkitError], str], ...] = (
    (
        r"certificate|server does not support SSL",
        UsageError,
        "set sslrootcert (PGSSLROOTCERT) to the server's authority, or sslmode (PGSSLMODE) to what it can",
    ),
    (r"authentication failed|no password supplied|pg_hba\.conf|not permitted to log in", UsageError, "28"),
    (r"role .* does not exist|permission denied for database", UsageError, "28"),
    (r"database .* does not exist", UsageError, "3D"),
    (r"too many (clients|connections)|connection slots|connection limit", PushbackError, "53"),
)


def classify_sqlite(error: Exception) -> BatchkitError:
    """Say in one line what an error means; the driver's error is its cause unless it quotes a row.

    :param error: what the ``sqlite3`` module raised.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return _of_the_module(error)
    kind, advice = _SQLITE.get(code & 0xFF, (PermanentError, "see the SQLite error"))
    classified = kind(f"SQLite: {error}; {advice}")
    classified.__cause__ = error
    return classified


def _of_the_module(error: Exception) -> BatchkitError:
    """Errors without a result code come from Python's module, not from SQLite."""
    if str(error).startswith("Could not decode"):
        # Its text quotes the row: neither the message nor a stack trace may show it.
        quoted_column = str(error).partition("'")[2].partition("'")[0]
        classified: BatchkitError = UnreadableTextError(
            f"SQLite: column {quoted_column!r} holds text that is not UTF-8; leave the column or the row out"
        )
        classified.__suppress_context__ = True
        return classified
    kind = TransientError if "closed database" in str(error) else PermanentError
    classified = kind(f"SQLite: {error}")
    classified.__cause__ = error
    return classified


def classify_postgres(error: Exception) -> BatchkitError:
    """Say in one line what an error means; the driver's error is its cause unless it may quote a row.

    :param error: what psycopg raised.
    """
    state: str | None = getattr(error, "sqlstate", None)
    if state is None:
        return _without_sqlstate(error)
    kind, advice = (
        _POSTGRES.get(state) or _POSTGRES.get(state[:2]) or (PermanentError, "see the server's log")
    )
    if not state.startswith(_SAFE_TO_REPEAT):
        hidden = kind(f"PostgreSQL: {type(error).__name__} ({state}); {advice}")
        hidden.__suppress_context__ = True
        return hidden
    said = getattr(error, "diag", None)
    classified = kind(f"PostgreSQL: {getattr(said, 'message_primary', None) or state} ({state}); {advice}")
    classified.__cause__ = error
    return classified


def missing_right(error: Exception, statement: str) -> UsageError | None:
    """Name the right that a statement lacked; None where the error is another one.

    :param error: what psycopg raised.
    """
    if getattr(error, "sqlstate", None) != _MISSING_RIGHT:
        return None
    said = str(error).partition("\n")[0]
    return UsageError(
        f"PostgreSQL: {said} ({_MISSING_RIGHT}); grant {statement.split(maxsplit=1)[0]} on it to this user"
    )


def _without_sqlstate(error: Exception) -> BatchkitError:
    """Tell what failed between driver and server: mostly, the connection."""
    message = " ".join(str(error).split())
    kind: type[BatchkitError] = TransientError
    advice = "the server does not answer, or the connection broke; it is tried again"
    for pattern, known, text in _POSTGRES_CONNECTING:
        if re.search(pattern, message):
            kind, advice = known, _POSTGRES[text][1] if text in _POSTGRES else text
            break
    else:
        if type(error).__name__ not in {"OperationalError", "InterfaceError", "ConnectionTimeout"}:
            kind, advice = PermanentError, "see psycopg's documentation"
    classified = kind(f"PostgreSQL: {message}; {advice}")
    classified.__cause__ = error
    return classified
