"""Where a PostgreSQL is: verified by default, no secret shown, a missing driver said."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from airflow_batchkit.connectors.sql.postgres.endpoint import PostgresEndpoint, connect
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.policies import Timeouts


def endpoint(**settings: Any) -> PostgresEndpoint:
    """Make an endpoint."""
    return PostgresEndpoint(**{"host": "db.example", "database": "shop", **settings})


@pytest.mark.parametrize(
    ("host", "sslmode"),
    [
        ("db.example", "verify-full"),
        ("10.0.0.1", "verify-full"),
        ("localhost.example", "verify-full"),
        ("localhost,db.example", "verify-full"),
        ("localhost", "prefer"),
        ("127.0.0.1", "prefer"),
        ("127.0.0.1, ::1", "prefer"),
        ("/run/postgresql", "prefer"),
    ],
)
def test_tls_is_verified_unless_the_server_is_this_machine(
    monkeypatch: pytest.MonkeyPatch, host: str, sslmode: str
) -> None:
    """Only a connection that does not leave the machine may do without a certificate by default."""
    monkeypatch.delenv("PGSSLMODE", raising=False)
    assert endpoint(host=host).tls == sslmode
    assert endpoint(host=host, sslmode="require").tls == "require"


def test_libpqs_own_variable_decides_about_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """PGSSLMODE is a decision too: it is left to libpq."""
    monkeypatch.setenv("PGSSLMODE", "disable")
    assert endpoint().tls is None
    assert endpoint(sslmode="verify-ca").tls == "verify-ca"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": ""}, "needs a host"),
        ({"database": ""}, "needs the name of a database"),
        ({"sslmode": "on"}, "sslmode='on': must be one of disable, allow, prefer"),
    ],
)
def test_what_reaches_no_server_is_refused(settings: dict[str, str], message: str) -> None:
    """What is missing or unknown is said before anything is opened."""
    with pytest.raises(UsageError, match=message):
        endpoint(**settings)


def test_password_is_not_shown() -> None:
    """Neither the repr nor the serialised settings hold it."""
    made = endpoint(user="reader", password="s3cret")
    assert "reader" in repr(made)
    assert "s3cret" not in f"{made!r} {made.serialize()}"


def test_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without psycopg, one line names the extra."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"pip install 'airflow-batchkit\[postgres\]'"):
        connect(endpoint(), Timeouts())
