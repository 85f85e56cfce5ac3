"""What is wrong: pure functions of what a check saw, what the last one knew, and the time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import msgspec

from airflow_batchkit.notifications.incident import Incident, Kind
from airflow_batchkit.watching.sights import CONTINUOUS, DagSight, Sight
from airflow_batchkit.watching.state import Known
from airflow_batchkit.watching.words import clock, lasting

_LONGEST_TRACE = 2500


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which Airflow it is.

    :param url: its address, for links.
    :param environment: how messages call it.
    """

    url: str
    environment: str | None = None

    def incident(self, kind: Kind, dag_id: str = "", **about: Any) -> Incident:
        """Make an incident in this Airflow; parameters are those of :class:`Incident`."""
        run_id = about.pop("run_id", "")
        page = f"{self.url}/dags/{quote(dag_id, safe='')}" if dag_id else None
        if page and run_id:
            page = f"{page}/runs/{quote(run_id, safe='')}"
        return Incident(
            kind=kind, dag_id=dag_id, run_id=run_id, run_url=page, environment=self.environment, **about
        )


def known_now(known: Known | None, dag: DagSight, now: datetime) -> Known:
    """Return what the next check needs to know of a DAG.

    An announced run is waited for until one of then or later exists. Airflow itself forgets: for a DAG
    without catch-up the announcement moves on with every parse, also while nobody creates runs.

    :param known: what the last check left; None for a DAG that is new.
    :param dag: as it is now.
    :param now: the time.
    """
    before = known or Known(since=now, seen=now)
    expected, noted = before.expected, before.noted
    made = None if dag.last_scheduled is None else dag.last_scheduled.run_after
    if expected is not None and (before.timetable != dag.timetable or (made and made >= expected)):
        expected = None
    if dag.is_paused or dag.next_run_after is None or dag.timetable == CONTINUOUS:
        expected = noted = None
    elif expected is None and not (made and made >= dag.next_run_after):
        expected, noted = dag.next_run_after, now
    return msgspec.structs.replace(before, seen=now, expected=expected, noted=noted, timetable=dag.timetable)


def wrong_with_dag(place: Place, dag: DagSight, known: Known, now: datetime) -> Iterator[Incident]:
    """Return what is wrong with one DAG.

    :param place: which Airflow.
    :param dag: as it is now.
    :param known: what :func:`known_now` returned.
    :param now: the time.
    """
    if dag.is_paused:
        if not dag.watched.allow_paused:
            yield place.incident("dag_paused", dag.dag_id, facts=_last_runs(dag))
        return
    yield from _not_created(place, dag, known, now)
    yield from _too_old(place, dag, known, now)
    yield from _failed(place, dag)
    yield from _stuck(place, dag, now)
    yield from _endless(place, dag, now)


def wrong_with_airflow(place: Place, sight: Sight, *, every_import_error: bool) -> Iterator[Incident]:
    """Return what is wrong with files, parts, and DAGs that are gone.

    :param place: which Airflow.
    :param sight: all that was seen.
    :param every_import_error: tell also of files without a watched DAG.
    """
    for part, heartbeat in sight.down.items():
        facts = (("Last heartbeat", clock(datetime.fromisoformat(heartbeat))),) if heartbeat else ()
        yield place.incident("part_down", subject=f"Airflow's {part.replace('_', ' ')}", facts=facts)
    for dag_id in sight.gone:
        yield place.incident("dag_gone", dag_id)
    for error in sight.import_errors:
        dags = [dag.dag_id for dag in sight.dags.values() if dag.file == error.file]
        if dags or every_import_error:
            trace = error.stack_trace[-_LONGEST_TRACE:]
            yield place.incident(
                "import_error",
                subject=str(error.file[1]),
                instance=str(error.file[0]),
                stack_trace=trace or None,
                facts=(("Watched DAGs in it", ", ".join(dags)),) if dags else (),
            )


def _not_created(place: Place, dag: DagSight, known: Known, now: datetime) -> Iterator[Incident]:
    if known.expected is None or known.noted is None:
        return
    # What is overdue when it is first announced (a new DAG, one unpaused just now) gets its grace too.
    if max(known.expected, known.noted) + dag.watched.limits.grace >= now:
        return
    active = (("Active runs", str(len(dag.active))),) if dag.active else ()
    last = dag.last_scheduled
    yield place.incident(
        "run_missing",
        dag.dag_id,
        instance=known.expected.isoformat(),
        facts=(
            ("Expected", clock(known.expected)),
            ("Timetable", dag.timetable or ""),
            ("Last scheduled run", "none" if last is None else clock(last.run_after)),
            *active,
        ),
    )


def _too_old(place: Place, dag: DagSight, known: Known, now: datetime) -> Iterator[Incident]:
    limit = dag.watched.limits.max_age
    if limit is None:
        return
    success = dag.last_success
    oldest = known.since
    if success is not None and success.ended_at is not None:
        oldest = success.ended_at
    elif dag.last_finished is not None:
        # It has finished runs, none of them in success: as old as the oldest we know of.
        oldest = min(oldest, dag.last_finished.run_after)
    if now - oldest <= limit:
        return
    yield place.incident(
        "success_too_old", dag.dag_id, facts=(*_last_runs(dag), ("Allowed age", lasting(limit)))
    )


def _failed(place: Place, dag: DagSight) -> Iterator[Incident]:
    run = dag.last_finished
    if run is None or run.state == "success":
        return
    facts = (*_last_runs(dag), ("Started", clock(run.started_at) if run.started_at else "never"))
    yield place.incident("still_failed", dag.dag_id, run_id=run.run_id, facts=facts)


def _stuck(place: Place, dag: DagSight, now: datetime) -> Iterator[Incident]:
    limit = dag.watched.limits.max_queued
    running = sum(run.state == "running" for run in dag.active)
    waits = [(since, run_id, f"task {task_id}") for run_id, task_id, since in dag.waiting]
    # Where the DAG's own limit (or a backfill's) is reached, a run waits for its turn.
    if dag.max_active is None or running < dag.max_active:
        waits += [
            (run.queued_at, run.run_id, "the run itself")
            for run in dag.active
            if run.state == "queued" and run.run_type != "backfill" and run.queued_at is not None
        ]
    since, run_id, what = min(waits, default=(now, "", ""))
    if now - since > limit:
        facts = (("Waiting", what), ("Since", clock(since)), ("Allowed", lasting(limit)))
        yield place.incident("stuck_queued", dag.dag_id, run_id=run_id, facts=facts)


def _endless(place: Place, dag: DagSight, now: datetime) -> Iterator[Incident]:
    limit = dag.watched.limits.max_running
    if limit is None:
        return
    for run in dag.active:
        if run.state == "running" and run.started_at is not None and now - run.started_at > limit:
            facts = (("Started", clock(run.started_at)), ("Allowed", lasting(limit)))
            yield place.incident(
                "runs_too_long", dag.dag_id, run_id=run.run_id, instance=run.run_id, facts=facts
            )


def _last_runs(dag: DagSight) -> tuple[tuple[str, str], ...]:
    success = dag.last_success
    ended = None if success is None else success.ended_at
    return (("Last success", "none is known" if ended is None else clock(ended)),)


def all_clear(incident: Incident, *, lasted: timedelta) -> Incident:
    """Return the news that an incident is over.

    :param incident: as it began.
    :param lasted: from when a check saw it first until one saw it no more.
    """
    facts: Mapping[str, str] = dict(incident.facts)
    kept = tuple((name, facts[name]) for name in ("Expected",) if name in facts)
    return replace(incident, over=True, stack_trace=None, facts=(*kept, ("Lasted", lasting(lasted))))
