"""Clients from Airflow connections, which are read in the Airflow thread; the clients work in any."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch.client import connect
from airflow_batchkit.engine.connections import Connections
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.hooks.elasticsearch import elasticsearch_endpoint
from airflow_batchkit.hooks.lookup import defined_connection
from airflow_batchkit.hooks.s3 import s3_client
from airflow_batchkit.hooks.sql import sql_database

if TYPE_CHECKING:
    from airflow_batchkit.engine.policies import Timeouts
    from airflow_batchkit.hooks.airflow_thread import AirflowThread


class AirflowConnections(Connections):
    """Resolves connection names for a running task.

    :param airflow: makes the calls to Airflow.
    """

    def __init__(self, airflow: AirflowThread) -> None:
        self._airflow = airflow

    @override
    def client(self, kind: str, conn_id: str, *, timeouts: Timeouts) -> Any:
        opening = f"opening of connection {conn_id}"
        if kind == "sql":
            # A database is connected to at once: not in the thread by which the progress is saved.
            return self._airflow.call(opening, sql_database, conn_id)(timeouts)
        make = _MAKERS.get(kind)
        if make is None:
            raise UsageError(f"there are no clients of kind {kind!r}; known are {', '.join(_MAKERS)}, sql")
        return self._airflow.call(opening, make, conn_id, timeouts)


def _elasticsearch(conn_id: str, timeouts: Timeouts) -> Any:
    return connect(elasticsearch_endpoint(defined_connection(conn_id)), timeouts)


_MAKERS: dict[str, Callable[[str, Timeouts], Any]] = {
    "elasticsearch": _elasticsearch,
    "s3": s3_client,
}
