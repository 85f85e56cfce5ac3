"""Clients for the command line: addresses from the URLs, credentials from the environment."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

from typing_extensions import override

from airflow_batchkit.cli.airflow_connections import AirflowConnection, airflow_connection, yes_or_no
from airflow_batchkit.engine.connections import Connections
from airflow_batchkit.engine.exceptions import UsageError

if TYPE_CHECKING:
    from airflow_batchkit.engine.policies import Timeouts

_ELASTICSEARCH = "BATCHKIT_ELASTICSEARCH_"
_log = logging.getLogger("airflow_batchkit")


class EnvironmentConnections(Connections):
    """Resolves the names that :mod:`airflow_batchkit.cli.systems` gives.

    A name is an address, with ``?conn_id=`` where the credentials are in ``AIRFLOW_CONN_<ID>``; without it they
    are in the system's own variables.
    """

    @override
    def client(self, kind: str, conn_id: str, *, timeouts: Timeouts) -> Any:
        """Make a new client.

        :raises UsageError: the environment lacks something, or holds what cannot be read.
        """
        if kind == "elasticsearch":
            return _elasticsearch(conn_id, timeouts)
        if kind == "s3":
            return _s3(conn_id, timeouts)
        if kind == "sql":
            return _sqlite(conn_id, timeouts)
        raise UsageError(f"the command line cannot connect to {kind!r}")


def _elasticsearch(name: str, timeouts: Timeouts) -> Any:
    from airflow_batchkit.connectors.elasticsearch.client import make_client

    parts = urlsplit(name)
    conn_id = parse_qs(parts.query).get("conn_id", [None])[0]
    settings = (
        _elasticsearch_environment()
        if conn_id is None
        else _elasticsearch_extras(airflow_connection(conn_id))
    )
    if not settings["verify_certs"]:
        _log.warning(
            "certificates of %s are not verified: who sits in between can read and change everything", name
        )
    return make_client(f"{parts.scheme}://{parts.netloc}", timeouts=timeouts, **settings)


def _elasticsearch_environment() -> dict[str, Any]:
    def read(name: str) -> str | None:
        return os.environ.get(_ELASTICSEARCH + name) or None

    user, password = read("USERNAME"), read("PASSWORD")
    if (user is None) != (password is None):
        raise UsageError(f"set both {_ELASTICSEARCH}USERNAME and {_ELASTICSEARCH}PASSWORD, or neither")
    verify = read("VERIFY_CERTS")
    return {
        "api_key": read("API_KEY"),
        "basic_auth": None if user is None else (user, password),
        "ca_certs": read("CA_CERTS"),
        "verify_certs": True if verify is None else yes_or_no(verify, f"{_ELASTICSEARCH}VERIFY_CERTS"),
    }


def _elasticsearch_extras(connection: AirflowConnection) -> dict[str, Any]:
    login = connection.login
    return {
        "api_key": connection.text("api_key"),
        "basic_auth": None if not login else (login, connection.password or ""),
        "ca_certs": connection.text("ca_certs"),
        "verify_certs": connection.flag("verify_certs", default=True),
    }


def _s3(conn_id: str, timeouts: Timeouts) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=timeouts.connect.total_seconds(),
        read_timeout=timeouts.read.total_seconds(),
        retries={"total_max_attempts": 1},
    )
    try:
        return boto3.client(
            "s3", config=config, **(_s3_settings(airflow_connection(conn_id)) if conn_id else {})
        )
    except (BotoCoreError, ValueError) as error:
        raise UsageError(f"the environment's AWS settings do not make a client: {error}") from error


def _s3_settings(connection: AirflowConnection) -> dict[str, Any]:
    return {
        "aws_access_key_id": connection.login or connection.text("aws_access_key_id"),
        "aws_secret_access_key": connection.password or connection.text("aws_secret_access_key"),
        "aws_session_token": connection.text("aws_session_token"),
        "region_name": connection.text("region_name"),
        "endpoint_url": connection.text("endpoint_url"),
    }


def _sqlite(name: str, timeouts: Timeouts) -> sqlite3.Connection:
    path = Path(name.removeprefix("sqlite://"))
    if not path.is_file():
        raise UsageError(f"there is no SQLite file {str(path)!r}")
    # Read-only: a source is never changed, and a mistyped path must not make an empty database.
    uri = f"file:{quote(str(path))}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=timeouts.read.total_seconds(), check_same_thread=False)
