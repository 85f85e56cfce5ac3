"""A date names the same run on the command line as in Airflow."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk import (  # noqa: TID253  # what is tested
    DAG,
    Asset,
    CronDataIntervalTimetable,
    CronTriggerTimetable,
)

from airflow_batchkit.cli.run_dates import RunDates, dates_of
from airflow_batchkit.engine.exceptions import UsageError

DAY = date(2026, 11, 22)


def utc(day: int, hour: int = 0, minute: int = 0) -> datetime:
    """Return an instant of November 2026."""
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


def dag(schedule: Any) -> DAG:
    """Make a DAG with nothing but a schedule."""
    return DAG("dates", schedule=schedule, start_date=datetime(2026, 1, 1, tzinfo=UTC), max_active_runs=1)


def interval(dates: RunDates) -> tuple[datetime | None, datetime | None]:
    """Return the data interval."""
    return dates.data_interval_start, dates.data_interval_end


@pytest.mark.parametrize(
    ("schedule", "logical_date", "end"),
    [
        (CronDataIntervalTimetable("@daily", timezone="UTC"), utc(22), utc(23)),
        (CronDataIntervalTimetable("30 3 * * *", timezone="UTC"), utc(22, 3, 30), utc(23, 3, 30)),
        (CronDataIntervalTimetable("0 0 * * *", timezone="Europe/Zurich"), utc(22, 23), utc(23, 23)),
        (CronTriggerTimetable("0 2 * * *", timezone="UTC"), utc(22, 2), utc(22, 2)),
        ("@daily", utc(22), utc(22)),
        (timedelta(days=1), utc(22), utc(22)),
    ],
    ids=repr,
)
def test_a_date_means_the_scheduled_run_of_that_ds(
    schedule: Any, logical_date: datetime, end: datetime
) -> None:
    """A date alone finds the run that the schedule has with this ``ds``, and its interval."""
    dates = dates_of(dag(schedule), DAY)
    assert dates.scheduled
    assert dates.logical_date == logical_date
    assert interval(dates) == (logical_date, end)


def test_an_instant_means_the_run_with_this_logical_date() -> None:
    """With a time of day, one run of several on a day is found."""
    hourly = dag(CronDataIntervalTimetable("@hourly", timezone="UTC"))
    dates = dates_of(hourly, utc(22, 5))
    assert (dates.scheduled, interval(dates)) == (True, (utc(22, 5), utc(22, 6)))
    assert dates.run_after == utc(22, 6)
    assert dates.run_id == "manual__2026-11-22T05:00:00+00:00"


def test_a_date_with_several_runs_is_refused() -> None:
    """Which of 24 runs is meant is not guessed; the message shows how to say it."""
    with pytest.raises(UsageError, match=r"several runs on 2026-11-22: .* --logical-date 2026-11-22T00:00"):
        dates_of(dag(CronDataIntervalTimetable("@hourly", timezone="UTC")), DAY)


def test_a_date_outside_of_the_schedule_is_a_manual_run() -> None:
    """Where nothing is scheduled, the interval is the one that Airflow infers for a manual run."""
    weekly = dag(CronDataIntervalTimetable("0 0 * * MON", timezone="UTC"))  # 22 November is a Sunday
    dates = dates_of(weekly, DAY)
    assert (dates.scheduled, dates.logical_date) == (False, utc(22))
    assert interval(dates) == (utc(9), utc(16))
    assert "none is scheduled" in str(dates)


@pytest.mark.parametrize("schedule", [None, "@once", "@continuous", Asset("orders")], ids=repr)
def test_a_dag_without_ticks_takes_the_date_as_it_is(schedule: Any) -> None:
    """Without a periodic schedule, the run is a manual one at midnight UTC of the date."""
    dates = dates_of(dag(schedule), DAY)
    assert (dates.scheduled, dates.logical_date) == (False, utc(22))


def test_without_a_date_there_is_none() -> None:
    """A run without a logical date has no interval, and one name that a second try finds again."""
    dates = dates_of(dag("@daily"), None)
    assert (dates.logical_date, interval(dates)) == (None, (None, None))
    assert dates.run_id == "manual__by_hand"
    assert str(dates) == "no logical date"
