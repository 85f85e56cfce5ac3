"""Which run of a DAG a date means: its logical date and its data interval, by the DAG's own timetable."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError

if TYPE_CHECKING:
    from airflow.sdk import DAG
    from airflow.timetables.base import DataInterval, Timetable

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDates:
    """The dates of one run; all in UTC.

    :param logical_date: None for a run without one.
    :param data_interval_start: None where there is no logical date.
    :param data_interval_end: the same.
    :param run_after: when Airflow would have begun the run.
    :param scheduled: whether the schedule has such a run; else it is what a manual run at that date would be.
    """

    logical_date: datetime | None
    data_interval_start: datetime | None
    data_interval_end: datetime | None
    run_after: datetime
    scheduled: bool

    @property
    def run_id(self) -> str:
        """What templates get where nobody named the run."""
        return "manual__by_hand" if self.logical_date is None else f"manual__{self.logical_date.isoformat()}"

    @override
    def __str__(self) -> str:
        if self.logical_date is None:
            return "no logical date"
        start, end = self.data_interval_start, self.data_interval_end
        kind = "scheduled" if self.scheduled else "manual, none is scheduled then"
        return f"logical date {self.logical_date} ({kind}), data interval {start} to {end}"


def dates_of(dag: DAG, given: date | None) -> RunDates:
    """Return the run that a date means.

    A date alone means the scheduled run whose ``{{ ds }}`` is that date; an instant, the run with exactly
    this logical date. Where the schedule has none, a manual run at the date (at midnight UTC).

    :param given: a date, an instant (``datetime``), or None for a run without a logical date.
    :raises UsageError: the schedule has several runs on that date.
    """
    if given is None:
        return RunDates(
            logical_date=None,
            data_interval_start=None,
            data_interval_end=None,
            run_after=datetime.now(tz=UTC),
            scheduled=False,
        )
    timetable = _timetable(dag)
    if isinstance(given, datetime):
        first = last = given.astimezone(UTC)
    else:
        first = datetime.combine(given, time(), tzinfo=UTC)
        last = first + timedelta(days=1) - _MICROSECOND
    found = _scheduled(timetable, first, last)
    if len(found) > 1:
        raise UsageError(
            f"DAG {dag.dag_id!r} has several runs on {given}: say which with its time, "
            f"as in --logical-date {found[0].logical_date:%Y-%m-%dT%H:%M}"
        )
    return found[0] if found else _manual(timetable, first)


def _timetable(dag: DAG) -> Timetable:
    timetable = dag.timetable
    try:
        from airflow.serialization.encoders import coerce_to_core_timetable
    except ImportError:  # below Airflow 3.2 it is the core's already
        return timetable  # type: ignore[return-value]  # typed for newer versions
    return coerce_to_core_timetable(timetable)


def _scheduled(timetable: Timetable, first: datetime, last: datetime) -> list[RunDates]:
    """Return the runs, two at most, whose logical dates the schedule has from first to last."""
    import pendulum
    from airflow.timetables.base import TimeRestriction

    window = TimeRestriction(pendulum.instance(first), pendulum.instance(last), catchup=True)
    found: list[RunDates] = []
    interval = None
    while timetable.periodic and len(found) < 2:  # noqa: PLR2004  # the second says that there are several
        info = timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=window)
        interval = None if info is None else info.data_interval
        if info is None or interval is None or not first <= interval.start <= last:
            break
        found.append(_dates(interval, run_after=info.run_after))
    return found


def _manual(timetable: Timetable, at: datetime) -> RunDates:
    import pendulum

    interval = timetable.infer_manual_data_interval(run_after=pendulum.instance(at))
    return dataclasses.replace(_dates(interval, run_after=at), logical_date=at, scheduled=False)


def _dates(interval: DataInterval, *, run_after: datetime) -> RunDates:
    start = _utc(interval.start)
    return RunDates(
        logical_date=start,
        data_interval_start=start,
        data_interval_end=_utc(interval.end),
        run_after=_utc(run_after),
        scheduled=True,
    )


def _utc(moment: datetime) -> datetime:
    return datetime.fromtimestamp(moment.timestamp(), tz=UTC)
