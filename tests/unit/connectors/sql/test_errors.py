"""A database's errors are told apart by what can be done about them."""

from __future__ import annotations

import sqlite3
import traceback
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.sql.errors import classify_postgres, classify_sqlite
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    PermanentError,
    PushbackError,
    TransientError,
    UsageError,
)

if TYPE_CHECKING:
    from pathlib import Path


def error_of(connection: sqlite3.Connection, query: str) -> sqlite3.Error:
    """Run a query that fails and return its error."""
    try:
        connection.execute(query).fetchall()
    except sqlite3.Error as error:
        return error
    finally:
        connection.close()
    pytest.fail(f"{query!r} did not fail")


@pytest.mark.parametrize(
    "query", ["SELECT nothing FROM sqlite_master", "SELECT * FROM nowhere", "SELECT 1 WHERE (", "SELECT"]
)
def test_wrong_query_is_a_usage_error(query: str) -> None:
    """Unknown tables and columns, and syntax errors, are for the user to mend."""
    classified = classify_sqlite(error_of(sqlite3.connect(":memory:"), query))
    assert isinstance(classified, UsageError)
    assert "check table, columns and where" in str(classified)


def test_locked_database_is_transient(tmp_path: Path) -> None:
    """While another process writes, the same query may work later."""
    path = tmp_path / "shop.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("CREATE TABLE t (a)")
    writer.execute("BEGIN EXCLUSIVE")
    error = error_of(sqlite3.connect(path, timeout=0), "SELECT * FROM t")
    writer.close()
    classified = classify_sqlite(error)
    assert type(classified) is TransientError
    assert classified.__cause__ is error


def test_damaged_file_is_permanent(tmp_path: Path) -> None:
    """A file that is no database will not become one by waiting."""
    path = tmp_path / "shop.db"
    path.write_bytes(b"these are no pages of a database" * 100)
    assert type(classify_sqlite(error_of(sqlite3.connect(path), "SELECT * FROM t"))) is PermanentError


def test_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    """A path that does not exist is a wrong setting."""
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(f"file:{tmp_path}/nowhere.db?mode=ro", uri=True)
    assert isinstance(classify_sqlite(caught.value), UsageError)


def test_undecodable_text_is_not_quoted() -> None:
    """SQLite's driver quotes the row in its message: neither ours nor our stack trace does."""
    error = error_of(sqlite3.connect(":memory:"), "SELECT CAST(X'736563726574FF' AS TEXT) AS name")
    assert "secret" in str(error)

    def as_session_does() -> None:
        try:
            raise error
        except sqlite3.Error as caught:
            raise classify_sqlite(caught)  # noqa: B904  # it says itself what its cause is

    with pytest.raises(PermanentError, match="column 'name' holds text that is not UTF-8") as caught:
        as_session_does()
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_closed_connection_is_transient() -> None:
    """A connection that was closed while it was read is the end of the leg, not of the run."""
    connection = sqlite3.connect(":memory:")
    connection.close()
    with pytest.raises(sqlite3.ProgrammingError) as caught:
        connection.execute("SELECT 1")
    assert isinstance(classify_sqlite(caught.value), TransientError)


def test_what_is_not_listed_is_permanent() -> None:
    """An error that nobody thought of fails the run with its own words."""
    classified: BatchkitError = classify_sqlite(sqlite3.InterfaceError("something new"))
    assert type(classified) is PermanentError
    assert "something new" in str(classified)


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("08006", TransientError),
        ("25P03", TransientError),
        ("28P01", UsageError),
        ("3D000", UsageError),
        ("40001", TransientError),
        ("42P01", UsageError),
        ("42501", UsageError),
        ("53300", PushbackError),
        ("55P03", TransientError),
        ("57P03", TransientError),
        ("58030", TransientError),
        ("XX001", PermanentError),
        ("0A000", PermanentError),
        ("P0001", PermanentError),
    ],
)
def test_sqlstate_of_postgres_decides(state: str, kind: type[BatchkitError]) -> None:
    """The state is looked up whole, then by its class; what nobody listed is permanent."""
    from psycopg import errors

    classified = classify_postgres(errors.lookup(state)("what it says"))
    assert isinstance(classified, kind)
    assert f"({state})" in str(classified)


def test_postgres_errors_that_may_quote_a_row_are_not_repeated() -> None:
    """Neither the message nor the stack trace of a failed cast shows the value."""
    from psycopg import errors

    def fail_as_a_session_does() -> None:
        try:
            raise errors.InvalidTextRepresentation('invalid input syntax for type integer: "secret"')
        except errors.Error as error:
            raise classify_postgres(error)  # noqa: B904  # the cause is classify's

    with pytest.raises(UsageError) as caught:
        fail_as_a_session_does()
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("connection failed: Connection refused\nIs the server running?", TransientError),
        ("server closed the connection unexpectedly", TransientError),
        ("SSL SYSCALL error: EOF detected", TransientError),
        ("SSL error: certificate verify failed", UsageError),
        ('FATAL:  password authentication failed for user "a"', UsageError),
        ('FATAL:  database "a" does not exist', UsageError),
        ("FATAL:  sorry, too many clients already", PushbackError),
        ("FATAL:  the database system is starting up", TransientError),
    ],
)
def test_failed_connections_to_postgres_are_told_by_their_words(
    message: str, kind: type[BatchkitError]
) -> None:
    """Where the driver has no state to give, the server's words decide; in doubt it is tried again."""
    from psycopg import OperationalError

    classified = classify_postgres(OperationalError(message))
    assert type(classified) is kind
    assert "\n" not in str(classified)


def test_misuse_of_the_driver_is_permanent() -> None:
    """An error that neither the server nor the network made will come again."""
    from psycopg import ProgrammingError

    assert isinstance(classify_postgres(ProgrammingError("the cursor is closed")), PermanentError)
