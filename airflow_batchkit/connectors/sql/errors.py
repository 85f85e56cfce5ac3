"""Which SQLite error is whose business: the connector's own error table."""

from __future__ import annotations

import sqlite3

from airflow_batchkit.engine.exceptions import BatchkitError, PermanentError, TransientError, UsageError

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
        classified: BatchkitError = PermanentError(
            f"SQLite: column {quoted_column!r} holds text that is not UTF-8; leave the column or the row out"
        )
        classified.__suppress_context__ = True
        return classified
    kind = TransientError if "closed database" in str(error) else PermanentError
    classified = kind(f"SQLite: {error}")
    classified.__cause__ = error
    return classified
