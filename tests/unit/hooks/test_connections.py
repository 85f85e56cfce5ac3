"""Connection names become clients through Airflow, in the Airflow thread."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.engine.exceptions import TransientError, UsageError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.hooks.airflow_thread import AirflowThread
from airflow_batchkit.hooks.connections import AirflowConnections
from airflow_batchkit.hooks.sql import postgres_endpoint
from tests.support.running_task import running_task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import PostgresServer
    from tests.support.s3 import S3Server

pytestmark = pytest.mark.airflow
TIMEOUTS = Timeouts(connect=timedelta(seconds=3), read=timedelta(seconds=7))


@pytest.fixture(scope="module")
def task(airflow_database: None) -> Iterator[dict[str, Any]]:
    """Give the context of a task that runs."""
    del airflow_database
    with running_task("connections") as context:
        yield context


@pytest.fixture
def connections(task: dict[str, Any]) -> Iterator[AirflowConnections]:
    """Give what resolves names for that task."""
    del task
    with AirflowThread() as airflow:
        yield AirflowConnections(airflow)


def define(monkeypatch: pytest.MonkeyPatch, conn_id: str, **fields: Any) -> None:
    """Define a connection as the environment does."""
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))


def test_elasticsearch(connections: AirflowConnections, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client for the connection's host, which has not yet connected."""
    define(monkeypatch, "es", conn_type="elasticsearch", host="127.0.0.1", port=9)
    with connections.client("elasticsearch", "es", timeouts=TIMEOUTS) as client:
        (node,) = client.transport.node_pool.all()
        assert (node.host, node.port, node.scheme) == ("127.0.0.1", 9, "http")


def test_s3(connections: AirflowConnections, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our timeouts, no retries, signature 4; the connection's endpoint, region and own settings stay."""
    extra = {
        "endpoint_url": "http://127.0.0.1:9",
        "region_name": "eu-central-1",
        "config_kwargs": {"s3": {"addressing_style": "path"}, "read_timeout": 999},
    }
    define(monkeypatch, "lake", conn_type="aws", login="a", password="b", extra=extra)
    client = connections.client("s3", "lake", timeouts=TIMEOUTS)
    config = client.meta.config
    assert (config.connect_timeout, config.read_timeout) == (3, 7)
    assert config.retries["total_max_attempts"] == 1
    assert config.signature_version == "s3v4"
    assert config.s3["addressing_style"] == "path"
    assert client.meta.endpoint_url == "http://127.0.0.1:9"
    assert client.meta.region_name == "eu-central-1"
    client.close()


@pytest.mark.s3
def test_s3_with_a_role(
    connections: AirflowConnections, monkeypatch: pytest.MonkeyPatch, s3_server: S3Server, bucket: str
) -> None:
    """The amazon provider assumes the connection's role; the client writes with its temporary credentials."""
    extra = {
        "region_name": "us-east-1",
        "endpoint_url": s3_server.endpoint_url,
        "role_arn": "arn:aws:iam::123456789012:role/export",
        "service_config": {"sts": {"endpoint_url": s3_server.endpoint_url}},
    }
    define(monkeypatch, "role", conn_type="aws", login=s3_server.access_key, password="x", extra=extra)
    with closing(connections.client("s3", "role", timeouts=TIMEOUTS)) as client:
        client.put_object(Bucket=bucket, Key="x", Body=b"x")
        credentials = client._request_signer._credentials.get_frozen_credentials()
        assert credentials.token
        assert credentials.access_key != s3_server.access_key


@pytest.mark.parametrize(("verify", "wanted"), [("/etc/ssl/ca.pem", "/etc/ssl/ca.pem"), (False, False)])
def test_s3_of_ones_own(
    connections: AirflowConnections, monkeypatch: pytest.MonkeyPatch, verify: object, wanted: object
) -> None:
    """A store with its own address and certificates: ``service_config`` and ``verify`` reach the client."""
    extra = {
        "region_name": "us-east-1",
        "endpoint_url": "https://127.0.0.1:9",
        "service_config": {"s3": {"endpoint_url": "https://127.0.0.1:10"}},
        "config_kwargs": {"request_checksum_calculation": "when_required"},
        "verify": verify,
    }
    define(monkeypatch, "own", conn_type="aws", login="a", password="b", extra=extra)
    with closing(connections.client("s3", "own", timeouts=TIMEOUTS)) as client:
        assert client.meta.endpoint_url == "https://127.0.0.1:10"
        assert client.meta.config.request_checksum_calculation == "when_required"
        assert client._endpoint.http_session._verify == wanted


def test_s3_with_a_role_that_cannot_be_assumed_now(
    connections: AirflowConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token service that does not answer may answer at the next try."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    extra = {"region_name": "eu-central-1", "role_arn": "arn:aws:iam::123456789012:role/export"}
    define(monkeypatch, "role", conn_type="aws", login="a", password="b", extra=extra)
    with pytest.raises(TransientError, match="opening of connection role"):
        connections.client("s3", "role", timeouts=TIMEOUTS)


def test_sqlite(connections: AirflowConnections, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A connection that any thread may use; a file that is not there is not made."""
    path = tmp_path / "or ders%.db"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE orders (id INTEGER)")
    made.close()
    define(monkeypatch, "orders", conn_type="sqlite", host=str(path))
    database = connections.client("sql", "orders", timeouts=TIMEOUTS)
    seen: list[Any] = []
    reader = threading.Thread(
        target=lambda: seen.extend(database.execute("SELECT count(*) FROM orders").fetchall())
    )
    reader.start()
    reader.join(5)
    database.close()
    assert seen == [(0,)]
    define(monkeypatch, "orders", conn_type="sqlite", host=str(tmp_path / "mistyped.db"))
    with pytest.raises(sqlite3.OperationalError):
        connections.client("sql", "orders", timeouts=TIMEOUTS)
    assert not (tmp_path / "mistyped.db").exists()


def test_postgres_endpoint(task: dict[str, Any]) -> None:
    """Address, credentials and the known extras, each by its name; what else is in them changes nothing."""
    from airflow.sdk import Connection

    del task
    extra = {"sslmode": "require", "sslcert": "/c.pem", "options": "-c statement_timeout=0", "cursor": "x"}
    stored = Connection(
        conn_id="db",
        conn_type="postgres",
        host="db",
        schema="shop",
        login="a",
        password="b",
        extra=json.dumps(extra),
    )
    found = postgres_endpoint(stored)
    assert (found.host, found.port, found.database) == ("db", 5432, "shop")
    assert (found.user, found.password) == ("a", "b")
    assert (found.sslmode, found.sslcert, found.sslrootcert) == ("require", "/c.pem", None)


@pytest.mark.postgres
def test_postgres(
    connections: AirflowConnections, monkeypatch: pytest.MonkeyPatch, postgres_server: PostgresServer
) -> None:
    """A connection to the server, with our limits; one that names no database is refused."""
    where = {"conn_type": "postgres", "host": "127.0.0.1", "port": postgres_server.port, "login": "admin"}
    define(monkeypatch, "db", **where, schema="postgres")
    with connections.client("sql", "db", timeouts=TIMEOUTS) as database:
        assert database.execute("SELECT current_database()").fetchone() == ("postgres",)
        assert database.info.get_parameters()["connect_timeout"] == "3"
        assert database.info.get_parameters()["tcp_user_timeout"] == "7000"
    define(monkeypatch, "db", **where)
    with pytest.raises(UsageError, match="connection 'db': a PostgreSQL connection needs the name of a data"):
        connections.client("sql", "db", timeouts=TIMEOUTS)


@pytest.mark.parametrize("kind", ["elasticsearch", "s3", "sql"])
def test_undefined_connection(connections: AirflowConnections, kind: str) -> None:
    """One line says which name is missing and where to define it."""
    with pytest.raises(UsageError, match=r"connection 'nowhere' is not defined; .*AIRFLOW_CONN_NOWHERE"):
        connections.client(kind, "nowhere", timeouts=TIMEOUTS)


def test_api_that_fails_is_not_an_undefined_connection(
    connections: AirflowConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow says "not defined" also when its API fails; a task must not fail for good for that."""
    from airflow.sdk.api.client import ConnectionOperations

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(ConnectionOperations, "get", unreachable)
    with pytest.raises(TransientError):
        connections.client("sql", "nowhere", timeouts=TIMEOUTS)


def test_other_kinds(connections: AirflowConnections, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection of another type, or a kind that nobody knows, is refused by name."""
    define(monkeypatch, "web", conn_type="http", host="example.org")
    with pytest.raises(UsageError, match="connection 'web' is of type 'http', which is no SQL database"):
        connections.client("sql", "web", timeouts=TIMEOUTS)
    define(monkeypatch, "empty", conn_type="sqlite")
    with pytest.raises(UsageError, match="connection 'empty' names no file"):
        connections.client("sql", "empty", timeouts=TIMEOUTS)
    with pytest.raises(UsageError, match="no clients of kind 'kafka'"):
        connections.client("kafka", "web", timeouts=TIMEOUTS)
