"""Clients for the command line: addresses from the URLs, credentials from the environment."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from typing_extensions import override

from airflow_batchkit.cli.airflow_connections import AirflowConnection, airflow_connection
from airflow_batchkit.engine.connections import Connections
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.hooks.switches import as_optional_text, as_switch, optional_texts

if TYPE_CHECKING:
    from airflow_batchkit.connectors.elasticsearch.client import ElasticsearchEndpoint
    from airflow_batchkit.connectors.sql.postgres.endpoint import PostgresEndpoint
    from airflow_batchkit.engine.policies import Timeouts

_PREFIX = "BATCHKIT_ELASTICSEARCH_"


class EnvironmentConnections(Connections):
    """Resolves the names that :mod:`airflow_batchkit.cli.systems` gives.

    A name is an address, with ``?conn_id=`` where the credentials are in ``AIRFLOW_CONN_<ID>``; without it,
    they are in the variables of the system itself.
    """

    @override
    def client(self, kind: str, conn_id: str, *, timeouts: Timeouts) -> Any:
        """Make a new client.

        :raises UsageError: the environment lacks something, or holds what cannot be read.
        """
        if kind == "elasticsearch":
            from airflow_batchkit.connectors.elasticsearch.client import connect

            return connect(elasticsearch_endpoint(conn_id), timeouts=timeouts)
        if kind == "s3":
            from airflow_batchkit.cli.s3_client import s3_client

            return s3_client(conn_id, timeouts)
        if kind == "sql":
            if conn_id.startswith("postgresql://"):
                from airflow_batchkit.connectors.sql.postgres.endpoint import connect as connect_postgres

                return connect_postgres(postgres_endpoint(conn_id), timeouts)
            return _sqlite(conn_id, timeouts)
        raise UsageError(f"the command line cannot connect to {kind!r}")


def elasticsearch_endpoint(name: str) -> ElasticsearchEndpoint:
    """Return where an Elasticsearch is and how to get in.

    :param name: its address, ``https://search.example:9200``, or several hosts with commas between them, with
        ``?conn_id=`` where there is a connection.
    :raises UsageError: the environment lacks something, or contradicts itself.
    """
    from airflow_batchkit.connectors.elasticsearch.client import ElasticsearchEndpoint

    parts = urlsplit(name)
    conn_id = parse_qs(parts.query).get("conn_id", [None])[0]
    settings = _from_variables() if conn_id is None else _from_connection(airflow_connection(conn_id))
    return ElasticsearchEndpoint(
        hosts=tuple(f"{parts.scheme}://{host}" for host in parts.netloc.split(",")), **settings
    )


def postgres_endpoint(name: str) -> PostgresEndpoint:
    """Return where a PostgreSQL is and how to get in; without a connection libpq's own variables say that.

    :param name: its address, ``postgresql://db.example:5432/shop``, with ``?conn_id=`` where there is a
        connection.
    :raises UsageError: the environment lacks the connection.
    """
    from airflow_batchkit.connectors.sql.postgres.endpoint import (
        DEFAULT_PORT,
        TEXT_SETTINGS,
        PostgresEndpoint,
    )

    parts = urlsplit(name)
    conn_id = parse_qs(parts.query).get("conn_id", [None])[0]
    connection = AirflowConnection() if conn_id is None else airflow_connection(conn_id)
    extra = connection.extra
    return PostgresEndpoint(
        host=parts.hostname or "",
        port=parts.port or DEFAULT_PORT,
        database=unquote(parts.path.strip("/")),
        user=connection.login or None,
        password=connection.password or None,
        **optional_texts(extra, *TEXT_SETTINGS),
    )


def _from_variables() -> dict[str, Any]:
    def read(name: str) -> str | None:
        return os.environ.get(_PREFIX + name) or None

    return {
        "api_key": read("API_KEY"),
        "username": read("USERNAME"),
        "password": read("PASSWORD"),
        "ca_certs": read("CA_CERTS"),
        "fingerprint": read("FINGERPRINT"),
        "verify_certs": as_switch(f"{_PREFIX}VERIFY_CERTS", read("VERIFY_CERTS") or True),
    }


def _from_connection(connection: AirflowConnection) -> dict[str, Any]:
    extra = connection.extra
    return {
        "api_key": as_optional_text(extra.get("api_key")),
        "username": connection.login or None,
        "password": connection.password or None,
        "ca_certs": as_optional_text(extra.get("ca_certs")),
        "fingerprint": as_optional_text(extra.get("ssl_assert_fingerprint")),
        "verify_certs": as_switch("verify_certs", extra.get("verify_certs", True)),
        "http_compress": as_switch("http_compress", extra.get("http_compress", False)),
    }


def _sqlite(name: str, timeouts: Timeouts) -> sqlite3.Connection:
    # Without a mode it is a source, which is never changed.
    file, _, mode = name.removeprefix("sqlite://").partition("?mode=")
    path = Path(file)
    if not path.is_file() and not (mode == "rwc" and path.parent.is_dir()):
        raise UsageError(f"there is no SQLite file {file!r}")
    # Reader threads share the connection.
    return sqlite3.connect(
        f"file:{quote(file)}?mode={mode or 'ro'}",
        uri=True,
        timeout=timeouts.request.total_seconds(),
        check_same_thread=False,
    )
