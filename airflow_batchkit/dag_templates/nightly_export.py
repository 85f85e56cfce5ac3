"""The nightly export of an Elasticsearch index to S3, as a whole DAG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.notifications.slack import slack_alerts
from airflow_batchkit.transfers.elasticsearch_to_s3 import ElasticsearchToS3Operator

_TASK_ID = "export"
_AT_MOST_DAILY = {"@daily", "@weekly", "@monthly", "@quarterly", "@yearly"}


def nightly_export(
    dag_id: str,
    *,
    index: str | Sequence[str],
    date_field: str,
    s3_bucket: str,
    s3_prefix: str,
    start_date: datetime,
    schedule: str = "@daily",
    timezone: str = "UTC",
    query: Mapping[str, Any] | None = None,
    slack_channel: str | None = None,
    slack_conn_id: str | None = None,
    slack_webhook_conn_id: str | None = None,
    deadline: timedelta | None = None,
    default_args: Mapping[str, Any] | None = None,
    tags: Sequence[str] = ("batchkit",),
    catchup: bool = False,
    **operator_arguments: Any,
) -> DAG:
    """Make a DAG that exports, after each data interval, the documents whose date lies in it.

    The trigger dialog asks for *start at* (a part only), *restart* and *LOCAL mode*. The output of the
    interval that begins on 1 March 2026 lies below ``<s3_prefix>/ds=2026-03-01``.

    :param dag_id: name of the DAG; its one task is called ``export``.
    :param index: one concrete index, or a list of them.
    :param date_field: its date decides to which interval a document belongs; *start at* is a date in it.
    :param s3_bucket: the bucket.
    :param s3_prefix: where the outputs of all intervals lie.
    :param start_date: when the first interval begins.
    :param schedule: cron expression; each tick ends one interval and begins the next. At most one a day: the
        outputs are told apart by their dates. Default ``@daily``.
    :param timezone: of the schedule and of the dates in the prefix. Default UTC.
    :param query: a further condition, as the body of ``"query"``. Default: none.
    :param slack_channel: channel for alerts through the Web API.
    :param slack_conn_id: connection of type ``slack``. Default ``slack_api_default``.
    :param slack_webhook_conn_id: connection of type ``slackwebhook``, instead of the other two.
    :param deadline: alert when a run is unfinished so long after it was queued. Default: no such alert.
    :param default_args: the DAG's own. Default: 3 retries, 5 minutes apart.
    :param tags: of the DAG. Default ``batchkit``.
    :param catchup: whether to run the intervals since ``start_date`` that were missed. Default: no.
    :param operator_arguments: more arguments of ``ElasticsearchToS3Operator`` (``throttle``,
        ``error_budget``, ``dead_letters``, ``transform``, …).
    :raises UsageError: a schedule of several ticks a day, or a deadline or Slack parameters that do not say
        where alerts go.
    """
    _check_schedule(dag_id, schedule)
    own = {"retries": 3, "retry_delay": timedelta(minutes=5), **(default_args or {})}
    where = {
        "channel": slack_channel,
        "slack_conn_id": slack_conn_id,
        "slack_webhook_conn_id": slack_webhook_conn_id,
    }
    alerts: dict[str, Any] = {"default_args": own}
    if deadline is not None or any(where.values()):
        alerts = slack_alerts(**where, deadline=deadline, task_id=_TASK_ID, default_args=own)
    with DAG(
        dag_id,
        # A plain "@daily" has no data interval on Airflow 3: this timetable gives each run its day.
        schedule=CronDataIntervalTimetable(schedule, timezone=timezone),
        start_date=start_date,
        catchup=catchup,
        max_active_runs=1,
        params=_form(),
        tags=list(tags),
        **alerts,
    ) as dag:
        ElasticsearchToS3Operator(
            task_id=_TASK_ID,
            index=index,
            query=_in_interval(date_field, query),
            date_field=date_field,
            s3_bucket=s3_bucket,
            s3_prefix=f"{s3_prefix.rstrip('/')}/ds={_date_of_interval(timezone)}",
            **{
                "start_at": "{{ params.start_at }}",
                "restart": "{{ params.restart }}",
                "local": "{{ params.local }}",
                **operator_arguments,
            },
        )
    return dag


def _check_schedule(dag_id: str, schedule: str) -> None:
    minute_and_hour = schedule.split()[:2]
    if schedule not in _AT_MOST_DAILY and not all(part.isdecimal() for part in minute_and_hour):
        raise UsageError(
            f"nightly_export({dag_id!r}): the schedule {schedule!r} may tick more than once a day, "
            "and two runs would share one prefix; write '@daily', or cron with one minute and one hour"
        )


def _date_of_interval(timezone: str) -> str:
    return f"{{{{ data_interval_start.in_timezone('{timezone}') | ds }}}}"


def _in_interval(date_field: str, query: Mapping[str, Any] | None) -> dict[str, Any]:
    interval = {
        "range": {date_field: {"gte": "{{ data_interval_start | ts }}", "lt": "{{ data_interval_end | ts }}"}}
    }
    return interval if query is None else {"bool": {"filter": [interval, dict(query)]}}


def _form() -> dict[str, Param]:
    """Return the fields of the trigger dialog."""
    return {
        "start_at": Param(
            default=None,
            type=["null", "string"],
            title="Start at",
            description="Export only a part, from this date on (2026-03-01T12:00). "
            "Such a run never replaces a whole output.",
        ),
        "restart": Param(
            default=False, type="boolean", title="Restart", description="Begin anew, whatever is there."
        ),
        "local": Param(
            default=False,
            type="boolean",
            title="LOCAL mode",
            description="Read and transform, write nothing.",
        ),
    }
