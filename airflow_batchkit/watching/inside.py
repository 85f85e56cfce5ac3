"""A check made by a task: Airflow is asked through its REST API, as a task sees nothing of other DAGs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.hooks.switches import as_optional_text
from airflow_batchkit.notifications.destination import SlackDestination
from airflow_batchkit.notifications.incident import Incident
from airflow_batchkit.notifications.rendering import headline
from airflow_batchkit.provider_info import SECTION
from airflow_batchkit.stores.variable import TaskScope, VariableStore
from airflow_batchkit.watching.api import AirflowApi, AirflowEndpoint
from airflow_batchkit.watching.check import Check, Expectations, Outcome, Teller
from airflow_batchkit.watching.rules import Place
from airflow_batchkit.watching.telling import SlackTeller

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_batchkit.hooks.airflow_thread import AirflowThread

_STATE = "watch"
_log = logging.getLogger(__name__)


def check_from_a_task(
    *, dag_id: str, airflow_conn_id: str, expectations: Expectations, destination: SlackDestination
) -> Outcome:
    """Make one check; the state is kept in a Variable.

    :param dag_id: of the DAG that watches: each has a state of its own.
    :param airflow_conn_id: connection to Airflow's own API server: host, port, schema, login and password, or
        a ``token`` among the extras; ``ca_certs`` for a certificate of one's own.
    :param expectations: what to look after.
    :param destination: where the news goes.
    :raises UsageError: the connection is not defined, or does not say how to reach an API server.
    :raises TransientError: the state cannot be read or kept just now.
    """
    from airflow.providers.common.compat.sdk import conf

    from airflow_batchkit.hooks.airflow_thread import AirflowThread
    from airflow_batchkit.hooks.lookup import defined_connection

    with AirflowThread() as airflow:
        connection = airflow.call("look-up of the connection", defined_connection, airflow_conn_id)
        endpoint = endpoint_of_connection(connection)
        links = conf.get("api", "base_url", fallback="") or endpoint.base
        environment = conf.get(SECTION, "environment_name", fallback="") or urlsplit(links).netloc
        outcome = Check(
            api=AirflowApi(endpoint),
            expectations=expectations,
            store=VariableStore(TaskScope(dag_id=dag_id, task_id=_STATE, run_id="state"), airflow=airflow),
            state_key=_STATE,
            teller=_FromAirflowsThread(destination, airflow),
            place=Place(url=links.rstrip("/"), environment=environment),
        ).run()
    _log_outcome(outcome)
    return outcome


def endpoint_of_connection(connection: Connection) -> AirflowEndpoint:
    """Read a connection.

    :raises UsageError: it does not say how to reach an API server.
    """
    extras = connection.extra_dejson
    host = connection.host or ""
    scheme = (connection.schema or "http").lower()
    address = host if "://" in host else f"{scheme}://{host}"
    if connection.port:
        address = f"{address.rstrip('/')}:{connection.port}"
    try:
        return AirflowEndpoint(
            url=address,
            token=as_optional_text(extras.get("token")),
            username=connection.login or None,
            password=connection.password or None,
            ca_certs=as_optional_text(extras.get("ca_certs")),
        )
    except UsageError as error:
        message = f"connection {connection.conn_id!r}: {error}"
        raise UsageError(message) from error


class _FromAirflowsThread(Teller):
    """Sending looks a connection up: a call to Airflow like the others."""

    def __init__(self, destination: SlackDestination, airflow: AirflowThread) -> None:
        self._teller = SlackTeller(destination)
        self._airflow = airflow

    @override
    def tell(self, incident: Incident) -> None:
        self._airflow.call("sending of a message", self._teller.tell, incident)


def _log_outcome(outcome: Outcome) -> None:
    for note in outcome.notes:
        _log.warning("%s", note)
    for word, incidents in (("new", outcome.begun), ("over", outcome.over)):
        for incident in incidents:
            _log.warning("%s: %s %s", word, headline(incident), dict(incident.facts))
    _log.info(
        "DAGs watched: %s; incidents going on: %s",
        "Airflow could not be asked" if outcome.dags is None else outcome.dags,
        ", ".join(headline(entry.incident) for entry in outcome.going_on) or "none",
    )
