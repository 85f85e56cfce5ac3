"""The nightly export, made in ten lines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_batchkit.dag_templates import nightly_export
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.policies import RateLimit

SETTINGS: dict[str, Any] = {
    "index": "orders",
    "date_field": "created_at",
    "s3_bucket": "lake",
    "s3_prefix": "orders/",
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
}


def rendered(**settings: Any) -> Any:
    """Make the DAG and render its task as for the first interval of March."""
    import pendulum

    dag = nightly_export("nightly", **{**SETTINGS, **settings})
    zone = settings.get("timezone", "UTC")
    start, end = pendulum.datetime(2026, 3, 1, tz=zone), pendulum.datetime(2026, 3, 2, tz=zone)
    (task,) = dag.tasks
    context: Any = {
        "dag": dag,
        "data_interval_start": start.in_timezone("UTC"),
        "data_interval_end": end.in_timezone("UTC"),
        "params": {"start_at": None, "restart": False, "local": True},
    }
    task.render_template_fields(context)
    return task


def test_the_query_is_the_interval() -> None:
    """Documents from the start of the interval on, and before its end."""
    assert rendered().query == {
        "range": {"created_at": {"gte": "2026-03-01T00:00:00+00:00", "lt": "2026-03-02T00:00:00+00:00"}}
    }


def test_a_further_condition_is_added() -> None:
    """The user's own query narrows the interval; it does not replace it."""
    query = rendered(query={"term": {"shop": "{{ dag.dag_id }}"}}).query

    interval, own = query["bool"]["filter"]
    assert set(interval) == {"range"}
    assert own == {"term": {"shop": "nightly"}}


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_the_prefix_bears_the_local_date(timezone: str) -> None:
    """The day is the shop's day, wherever midnight is in UTC."""
    assert rendered(timezone=timezone).s3_prefix == "orders/ds=2026-03-01"


def test_each_run_has_a_whole_day() -> None:
    """A manual run, like a scheduled one, has an interval of a day; a plain @daily would have none."""
    dag = nightly_export("nightly", **SETTINGS)

    assert type(dag.timetable).__name__ == "CronDataIntervalTimetable"
    assert dag.max_active_runs == 1
    assert not dag.catchup


def test_the_form_reaches_the_operator() -> None:
    """What the trigger dialog sends is what the operator gets."""
    task = rendered()

    assert (task.start_at, task.restart, task.local) == ("None", "False", "True")


def test_more_arguments_go_to_the_operator() -> None:
    """Policies, transforms and the form's own fields can be given."""
    task = rendered(throttle=RateLimit(records_per_second=5), local=False, retries=7)

    assert task.throttle == RateLimit(records_per_second=5)
    assert task.local is False
    assert task.retries == 7


def test_alerts_are_wired_when_there_is_a_place_for_them() -> None:
    """A channel wires failures at both levels, a deadline lateness; without a channel nothing is wired."""
    quiet = nightly_export("nightly", **SETTINGS)
    loud: Any = nightly_export("nightly", **SETTINGS, slack_channel="#data", deadline=timedelta(hours=4))

    assert not quiet.tasks[0].on_failure_callback
    assert quiet.tasks[0].retries == loud.tasks[0].retries == 3
    assert loud.tasks[0].on_failure_callback
    assert loud.on_failure_callback
    assert loud.deadline[0].callback.kwargs == {"channel": "#data", "task_id": "export"}


@pytest.mark.parametrize("settings", [{"deadline": timedelta(hours=4)}, {"slack_conn_id": "mine"}])
def test_an_alert_that_nobody_would_hear_is_refused(settings: dict[str, Any]) -> None:
    """A deadline or a connection without a channel is a mistake, found while the DAG is parsed."""
    with pytest.raises(UsageError, match="say where alerts go"):
        nightly_export("nightly", **SETTINGS, **settings)


@pytest.mark.parametrize("schedule", ["@hourly", "*/5 * * * *", "0 * * * *", "0 6,18 * * *", "0 */2 * * *"])
def test_two_runs_never_share_a_prefix(schedule: str) -> None:
    """A schedule that may tick twice a day is refused: the second run would replace the first's output."""
    with pytest.raises(UsageError, match="more than once a day"):
        nightly_export("nightly", **SETTINGS, schedule=schedule)


@pytest.mark.parametrize("schedule", ["@daily", "@weekly", "30 2 * * *", "0 3 * * 1-5"])
def test_a_schedule_of_days_is_taken(schedule: str) -> None:
    """Daily, weekly, or on working days only."""
    assert nightly_export("nightly", **SETTINGS, schedule=schedule).dag_id == "nightly"
