"""Airflow connections by name, with "not defined" told apart from "could not be read"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_batchkit.engine.exceptions import UsageError

if TYPE_CHECKING:
    from airflow.sdk import Connection


def defined_connection(conn_id: str) -> Connection:
    """Return a connection; call it in the Airflow thread only.

    :raises UsageError: nobody defined it.
    """
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        _ask_server(conn_id)
        message = (
            f"connection {conn_id!r} is not defined; add it under Admin > Connections, or as the environment "
            f"variable AIRFLOW_CONN_{conn_id.upper()}"
        )
        raise UsageError(message) from error


def _ask_server(conn_id: str) -> None:
    # Airflow makes "not defined" of every failure of its API; that must not fail a task for good.
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    answer = SUPERVISOR_COMMS.send(GetConnection(conn_id=conn_id))
    if isinstance(answer, ErrorResponse) and answer.error != ErrorType.CONNECTION_NOT_FOUND:
        raise AirflowRuntimeError(answer)
