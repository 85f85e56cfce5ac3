"""Clients of the command line: addresses from names, credentials from the environment."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.cli.connections import (
    EnvironmentConnections,
    elasticsearch_endpoint,
    postgres_endpoint,
)
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.policies import Timeouts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "USERNAME", "PASSWORD", "CA_CERTS", "FINGERPRINT", "VERIFY_CERTS"):
        monkeypatch.delenv(f"BATCHKIT_ELASTICSEARCH_{name}", raising=False)


def test_elasticsearch_without_credentials() -> None:
    """A development server without security needs no variable, and certificates are verified by default."""
    endpoint = elasticsearch_endpoint("http://localhost:9200")
    assert endpoint.hosts == ("http://localhost:9200",)
    several = elasticsearch_endpoint("https://a.example:9200,[::1]:9201")
    assert several.hosts == ("https://a.example:9200", "https://[::1]:9201")
    assert (endpoint.api_key, endpoint.username, endpoint.verify_certs) == (None, None, True)


def test_elasticsearch_credentials_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The BATCHKIT_ELASTICSEARCH_ variables give credentials and certificates."""
    monkeypatch.setenv("BATCHKIT_ELASTICSEARCH_USERNAME", "reader")
    monkeypatch.setenv("BATCHKIT_ELASTICSEARCH_PASSWORD", "s3cret")
    monkeypatch.setenv("BATCHKIT_ELASTICSEARCH_CA_CERTS", "/ca.pem")
    monkeypatch.setenv("BATCHKIT_ELASTICSEARCH_VERIFY_CERTS", "false")
    endpoint = elasticsearch_endpoint("https://es:9200")
    assert (endpoint.username, endpoint.password, endpoint.ca_certs) == ("reader", "s3cret", "/ca.pem")
    assert not endpoint.verify_certs
    assert "s3cret" not in repr(endpoint)


def test_elasticsearch_credentials_from_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a conn_id, the connection gives the credentials and the URL still gives the address."""
    monkeypatch.setenv("BATCHKIT_ELASTICSEARCH_API_KEY", "other")
    monkeypatch.setenv(
        "AIRFLOW_CONN_PROD", '{"host": "elsewhere", "extra": {"api_key": "k", "verify_certs": "no"}}'
    )
    endpoint = elasticsearch_endpoint("https://es:9200?conn_id=prod")
    assert endpoint.hosts == ("https://es:9200",)
    assert (endpoint.api_key, endpoint.verify_certs) == ("k", False)


def test_half_a_login_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user name without a password is a mistake, not an anonymous user."""
    monkeypatch.setenv("BATCHKIT_ELASTICSEARCH_USERNAME", "reader")
    with pytest.raises(UsageError, match="password"):
        elasticsearch_endpoint("https://es:9200")


def test_sqlite_is_opened_for_reading_only(tmp_path: Path) -> None:
    """A source is never changed, and a path that does not exist makes no empty database."""
    file = tmp_path / "shop #1.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE orders (id)")
    with closing(EnvironmentConnections().client("sql", f"sqlite://{file}", timeouts=Timeouts())) as database:
        assert database.execute("SELECT count(*) FROM orders").fetchone() == (0,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            database.execute("DELETE FROM orders")
    with pytest.raises(UsageError, match="there is no SQLite file"):
        EnvironmentConnections().client("sql", f"sqlite://{tmp_path}/none.db", timeouts=Timeouts())
    assert not (tmp_path / "none.db").exists()


def test_postgres_credentials_from_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a conn_id, the connection gives user, password and TLS, and the URL still gives the address."""
    stored = {
        "conn_type": "postgres",
        "host": "elsewhere",
        "login": "reader",
        "password": "s3cret",
        "extra": {"sslmode": "verify-ca", "sslrootcert": "/ca.pem", "cursor": "dictcursor"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_PROD", json.dumps(stored))
    endpoint = postgres_endpoint("postgresql://db.example:5433/my%20shop?conn_id=prod")
    assert (endpoint.host, endpoint.port, endpoint.database) == ("db.example", 5433, "my shop")
    assert (endpoint.user, endpoint.password) == ("reader", "s3cret")
    assert (endpoint.sslmode, endpoint.sslrootcert) == ("verify-ca", "/ca.pem")


def test_postgres_without_a_connection_is_left_to_libpq() -> None:
    """Neither user nor password is made up: libpq has variables and files of its own for them."""
    endpoint = postgres_endpoint("postgresql://db.example/shop")
    assert (endpoint.port, endpoint.user, endpoint.password) == (5432, None, None)


def test_unknown_kind_is_refused() -> None:
    """A connector that the command line cannot serve is told so."""
    with pytest.raises(UsageError, match="cannot connect to 'ftp'"):
        EnvironmentConnections().client("ftp", "x", timeouts=Timeouts())
