"""Databases from Airflow connections.

``sqlite``: the host is the path of the file. ``postgres``: host, port, login, password and schema (the
database) as in the postgres provider. Extras, each read by its name:

========================  ===================================================================
``sslmode``               as libpq names it; default ``verify-full`` (this machine: ``prefer``)
``sslrootcert``           file with the certificates to trust, or ``system``
``sslcert``, ``sslkey``   files with the client's certificate and its key
``target_session_attrs``  which of several hosts will do, for example ``prefer-standby``
========================  ===================================================================
"""

from __future__ import annotations

import functools
import sqlite3
from typing import TYPE_CHECKING, Any

from airflow_batchkit.connectors.sql.postgres.endpoint import (
    DEFAULT_PORT,
    TEXT_SETTINGS,
    PostgresEndpoint,
    connect,
)
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.hooks.lookup import defined_connection
from airflow_batchkit.hooks.switches import optional_texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Connection

    from airflow_batchkit.engine.policies import Timeouts


def sql_database(conn_id: str) -> Callable[[Timeouts], Any]:
    """Read a connection; call it in the Airflow thread only.

    :param conn_id: the connection.
    :returns: what opens a DB-API connection, in any thread, for any other. What the database's driver raises
        is left to the connector, which knows what it means.
    :raises UsageError: nobody defined the connection, or it is not one of a database.
    """
    connection = defined_connection(conn_id)
    if connection.conn_type == "sqlite":
        return functools.partial(_sqlite, conn_id, connection.host)
    if connection.conn_type in {"postgres", "postgresql"}:
        return functools.partial(connect, postgres_endpoint(connection))
    kind = connection.conn_type
    raise UsageError(
        f"connection {conn_id!r} is of type {kind!r}, which is no SQL database that can be read; "
        "types that can are sqlite and postgres"
    )


def postgres_endpoint(connection: Connection) -> PostgresEndpoint:
    """Read a connection of type ``postgres``; call it in the Airflow thread only.

    :raises UsageError: the connection does not say how to reach a server.
    """
    extras: dict[str, Any] = connection.extra_dejson
    try:
        return PostgresEndpoint(
            host=connection.host or "",
            port=connection.port or DEFAULT_PORT,
            database=connection.schema or "",
            user=connection.login or None,
            password=connection.password or None,
            **optional_texts(extras, *TEXT_SETTINGS),
        )
    except UsageError as error:
        message = f"connection {connection.conn_id!r}: {error}"
        raise UsageError(message) from error


def _sqlite(conn_id: str, path: str | None, timeouts: Timeouts) -> sqlite3.Connection:
    if not path:
        raise UsageError(f"connection {conn_id!r} names no file; put the path of the database into its host")
    from pathlib import Path

    return sqlite3.connect(
        # ``mode=rw``: a path that is mistyped must not make an empty database.
        f"{Path(path).absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=timeouts.request.total_seconds(),
        check_same_thread=False,
    )
