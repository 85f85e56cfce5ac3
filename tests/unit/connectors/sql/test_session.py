"""A session bounds its queries and says in one line what went wrong."""

from __future__ import annotations

import logging
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.connectors.sql.session import Session
from airflow_batchkit.engine.exceptions import TransientError, UsageError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.testing.doubles import FakeConnections

if TYPE_CHECKING:
    from collections.abc import Callable

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def session(
    connect: Callable[[], Any] = lambda: sqlite3.connect(":memory:", check_same_thread=False),
    *,
    request: timedelta = timedelta(seconds=30),
) -> Session:
    """Open a session with a connection of the test's own."""
    context = OpenContext(
        connections=FakeConnections({"db": connect}),
        timeouts=Timeouts(request=request),
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return Session(context, "db")


def test_query_over_its_limit_is_transient() -> None:
    """A query that takes too long ends at Timeouts.request, and says so."""
    opened = session(request=timedelta(seconds=0.05))
    with pytest.raises(TransientError, match=r"longer than 0\.05 s \(Timeouts\.request\)"):
        opened.first(ENDLESS)
    opened.close()


def test_cancel_ends_a_running_query() -> None:
    """A reader that hangs in a query is ended from the main thread, within moments."""
    opened = session()
    raised: list[BaseException] = []

    def read() -> None:
        try:
            opened.first(ENDLESS)
        except TransientError as error:
            raised.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    opened.cancel()
    reader.join(10)
    assert not reader.is_alive()
    assert "closed while it was read" in str(raised[0])
    opened.close()


def test_queries_are_logged_without_their_values(caplog: pytest.LogCaptureFixture) -> None:
    """Each query is one line at debug, with its rows and duration; the values bound to it are not shown."""
    opened = session()
    with caplog.at_level(logging.DEBUG, logger="airflow_batchkit"):
        assert opened.first("SELECT ? AS name", ["secret"]) == ("secret",)
    assert "query: 1 rows in" in caplog.text
    assert "SELECT ? AS name" in caplog.text
    assert "secret" not in caplog.text
    opened.close()


def test_error_while_connecting_is_classified() -> None:
    """A file that does not exist is one clear line, whoever makes the connection."""
    with pytest.raises(UsageError, match="unable to open database file; check the path"):
        session(lambda: sqlite3.connect("file:/nowhere/shop.db?mode=ro", uri=True))


def test_unknown_driver_is_refused() -> None:
    """A connection to a database that is not supported says which ones are."""
    with pytest.raises(UsageError, match="connection 'db' uses builtins; supported are sqlite3"):
        session(object)


def test_foreign_errors_come_through() -> None:
    """What is no error of a database driver is not dressed up as one."""

    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        session(broken)
