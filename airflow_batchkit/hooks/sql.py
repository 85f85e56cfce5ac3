"""A DB-API connection from an Airflow connection."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.hooks.lookup import defined_connection

if TYPE_CHECKING:
    from airflow_batchkit.engine.policies import Timeouts


def sql_connection(conn_id: str, timeouts: Timeouts) -> Any:
    """Open a connection that another thread may use; call it in the Airflow thread only.

    What the database's driver raises is left to the connector, which knows what it means.

    :param conn_id: the connection; of type ``sqlite``, its host is the path of the database.
    :param timeouts: ``request`` is how long SQLite waits for a lock.
    :raises UsageError: nobody defined the connection, or it is not one of a database.
    """
    connection = defined_connection(conn_id)
    if connection.conn_type == "sqlite":
        return _sqlite(conn_id, connection.host, timeouts)
    from airflow.providers.common.sql.hooks.sql import DbApiHook

    hook = connection.get_hook()  # type: ignore[no-untyped-call]  # Airflow's own
    if not isinstance(hook, DbApiHook):
        kind = connection.conn_type
        raise UsageError(f"connection {conn_id!r} is of type {kind!r}, which is no SQL database")
    return hook.get_conn()


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
