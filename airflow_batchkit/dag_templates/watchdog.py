"""A DAG that tells which other DAGs do not run, are late, stuck, failed, paused or gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_batchkit.engine.exceptions import TransientError
from airflow_batchkit.notifications.destination import chosen_destination
from airflow_batchkit.notifications.ping import SuccessPing
from airflow_batchkit.watching.check import SETTLE, Expectations
from airflow_batchkit.watching.expectations import Watched
from airflow_batchkit.watching.inside import check_from_a_task

_CHECK_SECONDS = 240


def watchdog(
    dag_id: str = "batchkit_watchdog",
    *,
    start_date: datetime,
    watched: Sequence[Watched] = (),
    schedule: str = "*/5 * * * *",
    airflow_conn_id: str = "airflow_api_default",
    slack_channel: str | None = None,
    slack_conn_id: str | None = None,
    slack_webhook_conn_id: str | None = None,
    settle: timedelta = SETTLE,
    maintenance: Sequence[str] = (),
    every_import_error: bool = False,
    ping_url: str | None = None,
    tags: Sequence[str] = ("batchkit",),
    default_args: Mapping[str, Any] | None = None,
) -> DAG:
    """Make the DAG; its one task ``watch`` does what ``batchkit watch`` does.

    It cannot tell that the scheduler is down, as it does not run then: give it a ``ping_url``, or run
    ``batchkit watch`` outside of Airflow.

    :param dag_id: name of the DAG.
    :param start_date: when it begins.
    :param watched: what is expected of which DAGs; one that several mean belongs to the first. Default: every
        DAG, with the defaults of ``Watched``.
    :param schedule: cron expression. Default: every five minutes.
    :param airflow_conn_id: connection to this Airflow's own API server, with a user that may read.
    :param slack_channel: channel for the Web API.
    :param slack_conn_id: connection of type ``slack``. Default ``slack_api_default``.
    :param slack_webhook_conn_id: connection of type ``slackwebhook``, instead of the other two.
    :param settle: how long what is over has to stay over before that is told. Default 3 minutes.
    :param maintenance: windows for Airflow's own parts and files; those of DAGs stand in ``watched``.
    :param every_import_error: tell of files without a watched DAG too. Default: no.
    :param ping_url: pinged after a check that found nothing wrong; ``variable:NAME`` and ``connection:ID``
        keep the address out of the DAG file.
    :param tags: of the DAG. Default ``batchkit``.
    :param default_args: the DAG's own.
    :raises UsageError: a window, the address or the Slack parameters cannot be right.
    """
    destination = chosen_destination(
        channel=slack_channel, slack_conn_id=slack_conn_id, slack_webhook_conn_id=slack_webhook_conn_id
    )
    expectations = Expectations(
        watched=tuple(watched) or (Watched(),),
        airflow=Watched(maintenance=tuple(maintenance)),
        settle=settle,
        every_import_error=every_import_error,
    )
    all_is_well = None if ping_url is None else SuccessPing(ping_url)
    with DAG(
        dag_id,
        schedule=schedule,
        start_date=start_date,
        catchup=False,
        # Two checks at once would tell the same twice.
        max_active_runs=1,
        tags=list(tags),
        default_args=dict(default_args or {}),
    ) as dag:

        @task(retries=0, execution_timeout=timedelta(seconds=_CHECK_SECONDS))
        def watch() -> dict[str, Any]:
            """Look once, and tell what is new and what is over."""
            outcome = check_from_a_task(
                dag_id=dag_id,
                airflow_conn_id=airflow_conn_id,
                expectations=expectations,
                destination=destination,
            )
            if outcome.not_sent is not None:
                raise TransientError(f"{outcome.not_sent}; the next check tries again")
            if outcome.all_is_well and all_is_well is not None:
                all_is_well({})
            return outcome.to_dict()

        watch()
    return dag
