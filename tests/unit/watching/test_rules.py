"""What is wrong with a DAG: by what was seen, what was announced, and the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_batchkit.notifications.incident import Incident
from airflow_batchkit.watching import Limits, Watched
from airflow_batchkit.watching.rules import (
    Place,
    all_clear,
    known_now,
    wrong_with_airflow,
    wrong_with_dag,
)
from airflow_batchkit.watching.sights import DagSight, ImportErrorSight, RunSight, Sight
from airflow_batchkit.watching.state import Known

PLACE = Place(url="https://airflow.example", environment="production")
NOW = datetime(2026, 3, 2, 6, tzinfo=UTC)
HOUR = timedelta(hours=1)


def run(state: str = "success", *, at: datetime = NOW - 6 * HOUR, name: str = "r1", **times: Any) -> RunSight:
    """Make a run; one that has ended took a minute."""
    known: dict[str, Any] = {"queued_at": at, "started_at": at, "ended_at": None}
    if state in {"success", "failed"}:
        known["ended_at"] = at + timedelta(minutes=1)
    known["run_type"] = "scheduled"
    return RunSight(dag_id="orders", run_id=name, state=state, run_after=at, **{**known, **times})


def dag(*, limits: Limits | None = None, allow_paused: bool = False, **fields: Any) -> DagSight:
    """Make a DAG that ran last night and will run tonight."""
    known: dict[str, Any] = {
        "timetable": "0 0 * * *",
        "next_run_after": NOW + 18 * HOUR,
        "last_finished": run(),
        "last_success": run(),
        "last_scheduled": run(),
    }
    watched = Watched(limits=limits or Limits(), allow_paused=allow_paused)
    return DagSight(dag_id="orders", watched=watched, **{**known, **fields})


def wrong(sight: DagSight, known: Known | None = None, *, now: datetime = NOW) -> list[Incident]:
    """Return what is wrong, with what an earlier check left."""
    return list(wrong_with_dag(PLACE, sight, known_now(known, sight, now), now))


def kinds(sight: DagSight, known: Known | None = None, *, now: datetime = NOW) -> list[str]:
    """Return the kinds of what is wrong."""
    return [incident.kind for incident in wrong(sight, known, now=now)]


def test_a_dag_that_runs_is_in_order() -> None:
    """A success last night and an announcement for tonight is all that is expected."""
    assert wrong(dag(limits=Limits(max_age=26 * HOUR, max_running=HOUR))) == []


def test_an_announced_run_that_nobody_made_is_missing_after_its_grace() -> None:
    """Not before; and the incident says when it was expected, and is the same in the next check."""
    seen = dag(next_run_after=NOW, last_scheduled=run(at=NOW - 24 * HOUR))
    known = known_now(None, seen, NOW - HOUR)

    assert wrong(seen, known, now=NOW + timedelta(minutes=15)) == []
    (late,) = wrong(seen, known, now=NOW + timedelta(minutes=16))
    (later,) = wrong(seen, known, now=NOW + 5 * HOUR)
    assert late.kind == "run_missing"
    assert late.instance == later.instance == NOW.isoformat()
    assert dict(late.facts) == {
        "Expected": "2026-03-02 06:00:00 UTC",
        "Timetable": "0 0 * * *",
        "Last scheduled run": "2026-03-01 06:00:00 UTC",
    }


def test_an_announcement_that_moves_on_is_not_forgotten() -> None:
    """Without catch-up Airflow announces the next tick at each parse, whether or not the last one ran."""
    before = dag(next_run_after=NOW, last_scheduled=run(at=NOW - 24 * HOUR))
    known = known_now(None, before, NOW - HOUR)
    moved = dag(next_run_after=NOW + 24 * HOUR, last_scheduled=run(at=NOW - 24 * HOUR))

    assert kinds(moved, known, now=NOW + HOUR) == ["run_missing"]


def test_a_run_of_then_or_later_is_the_end_of_it() -> None:
    """The next announcement is waited for."""
    known = known_now(None, dag(next_run_after=NOW), NOW - HOUR)
    made = dag(next_run_after=NOW + 24 * HOUR, last_scheduled=run("running", at=NOW))

    after = known_now(known, made, NOW + HOUR)

    assert kinds(made, known, now=NOW + HOUR) == []
    assert (after.expected, after.noted) == (NOW + 24 * HOUR, NOW + HOUR)


def test_a_timetable_that_was_changed_announces_anew() -> None:
    """What the old one announced is not expected of the new one."""
    known = known_now(None, dag(next_run_after=NOW), NOW - HOUR)
    changed = dag(timetable="0 12 * * *", next_run_after=NOW + 6 * HOUR)

    assert kinds(changed, known, now=NOW + HOUR) == []


def test_a_dag_that_is_new_or_unpaused_just_now_gets_its_grace() -> None:
    """What is overdue when it is first announced is expected from then on: the scheduler needs a moment."""
    overdue = dag(next_run_after=NOW - 10 * HOUR, last_scheduled=None)
    first = known_now(None, overdue, NOW)

    assert kinds(overdue, None) == []
    assert kinds(overdue, first, now=NOW + timedelta(minutes=16)) == ["run_missing"]

    paused = known_now(first, dag(is_paused=True, next_run_after=NOW), NOW + HOUR)
    assert kinds(overdue, paused, now=NOW + 2 * HOUR) == []


@pytest.mark.parametrize(
    ("before", "tick"),
    [
        # 02:30 in Berlin: in winter time, in summer time, and on the day on which 02:30 does not exist.
        (datetime(2026, 3, 27, 12, tzinfo=UTC), datetime(2026, 3, 28, 1, 30, tzinfo=UTC)),
        (datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
        (datetime(2026, 3, 29, 12, tzinfo=UTC), datetime(2026, 3, 30, 0, 30, tzinfo=UTC)),
        (datetime(2026, 10, 24, 12, tzinfo=UTC), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        (datetime(2026, 10, 25, 12, tzinfo=UTC), datetime(2026, 10, 26, 1, 30, tzinfo=UTC)),
    ],
)
def test_a_clock_that_is_changed_makes_nothing_late(before: datetime, tick: datetime) -> None:
    """The instant is Airflow's own: a day of 23 or 25 hours is neither early nor late."""
    known = known_now(None, dag(next_run_after=tick, last_scheduled=None), before)
    waiting = dag(next_run_after=tick, last_scheduled=None)

    assert kinds(waiting, known, now=tick + timedelta(minutes=15)) == []
    assert kinds(waiting, known, now=tick + timedelta(minutes=16)) == ["run_missing"]


@pytest.mark.parametrize(
    ("timetable", "next_run_after"),
    [(None, None), ("Asset", None), ("@once", None), ("@continuous", NOW - HOUR)],
)
def test_without_a_timetable_only_the_age_counts(
    timetable: str | None, next_run_after: datetime | None
) -> None:
    """Manual, asset-triggered, finished and continuous DAGs have no run that could be missing."""
    seen = dag(timetable=timetable, next_run_after=next_run_after, last_scheduled=None)
    known = known_now(None, seen, NOW - 24 * HOUR)

    assert kinds(seen, known) == []
    old = dag(limits=Limits(max_age=HOUR), timetable=timetable, next_run_after=next_run_after)
    assert kinds(old, known) == ["success_too_old"]


def test_a_success_grows_old() -> None:
    """Counted from the end of the run; the message says when it was and what is allowed."""
    limits = Limits(max_age=6 * HOUR)
    success = run(at=NOW - 6 * HOUR)

    assert wrong(dag(limits=limits, last_success=success)) == []
    (old,) = wrong(dag(limits=limits, last_success=success), now=NOW + timedelta(minutes=2))
    assert old.kind == "success_too_old"
    assert dict(old.facts) == {"Last success": "2026-03-02 00:01:00 UTC", "Allowed age": "6 h"}


def test_a_dag_that_never_succeeded_is_as_old_as_it_is_known() -> None:
    """A new DAG has its whole age; one that only ever failed is counted from its failed run."""
    limits = Limits(max_age=6 * HOUR)
    new = dag(limits=limits, last_finished=None, last_success=None)
    failing = dag(limits=limits, last_finished=run("failed", at=NOW - 7 * HOUR), last_success=None)

    assert kinds(new) == []
    assert kinds(new, known_now(None, new, NOW - 7 * HOUR)) == ["success_too_old"]
    assert kinds(failing) == ["success_too_old", "still_failed"]


def test_a_failure_counts_until_something_succeeds() -> None:
    """The run that ended last decides; its link leads to the run."""
    (failed,) = wrong(dag(last_finished=run("failed", at=NOW - HOUR, name="manual__1+2")))

    assert failed.kind == "still_failed"
    assert failed.run_url == "https://airflow.example/dags/orders/runs/manual__1%2B2"
    assert dict(failed.facts)["Last success"] == "2026-03-02 00:01:00 UTC"


def test_what_waits_too_long_is_stuck() -> None:
    """A queued run, or a task without a worker; the one that has waited longest speaks for the DAG."""
    queued = run("queued", at=NOW - HOUR, name="q", started_at=None)
    fresh = run("queued", at=NOW - timedelta(minutes=30), name="f", started_at=None)
    running = run("running", at=NOW - 2 * HOUR, name="w")

    assert kinds(dag(active=[fresh, running], waiting=[("w", "export", NOW - HOUR / 2)])) == []
    (stuck,) = wrong(dag(active=[fresh, queued, running], waiting=[("w", "export", NOW - HOUR / 2)]))
    assert (stuck.kind, stuck.run_id, dict(stuck.facts)["Waiting"]) == ("stuck_queued", "q", "the run itself")
    (stuck,) = wrong(
        dag(active=[running], waiting=[("w", "load", NOW - HOUR), ("w", "export", NOW - 2 * HOUR)])
    )
    assert dict(stuck.facts) == {
        "Waiting": "task export",
        "Since": "2026-03-02 04:00:00 UTC",
        "Allowed": "30 min",
    }


def test_a_run_that_waits_for_its_turn_is_not_stuck() -> None:
    """Behind as many runs as its DAG may have, or in a backfill, which has a limit of its own."""
    queued = run("queued", at=NOW - HOUR, name="q", started_at=None)
    backfill = run("queued", at=NOW - HOUR, name="b", started_at=None, run_type="backfill")
    running = run("running", at=NOW - 2 * HOUR, name="w")

    assert kinds(dag(active=[queued, running], max_active=1)) == []
    assert kinds(dag(active=[queued, running], max_active=2)) == ["stuck_queued"]
    assert kinds(dag(active=[backfill])) == []


def test_a_run_may_take_only_so_long() -> None:
    """Counted from its start, where there is a limit."""
    long = run("running", at=NOW - 3 * HOUR)

    assert kinds(dag(active=[long])) == []
    assert kinds(dag(active=[long], limits=Limits(max_running=3 * HOUR))) == []
    assert kinds(dag(active=[long], limits=Limits(max_running=2 * HOUR))) == ["runs_too_long"]


def test_of_a_paused_dag_only_that_is_told() -> None:
    """Where it may be paused, nothing."""
    trouble: dict[str, Any] = {
        "is_paused": True,
        "last_finished": run("failed"),
        "last_success": None,
        "limits": Limits(max_age=HOUR),
    }

    assert kinds(dag(**trouble)) == ["dag_paused"]
    assert kinds(dag(**trouble, allow_paused=True)) == []


def test_parts_files_and_dags_that_are_gone() -> None:
    """A part tells its last heartbeat; a file its watched DAGs, or is left out where it has none."""
    error = ImportErrorSight(file=("dags-folder", "orders.py"), stack_trace="x" * 9000 + "ImportError: no")
    stray = ImportErrorSight(file=("dags-folder", "else.py"), stack_trace="")
    sight = Sight(
        dags={"orders": dag(file=("dags-folder", "orders.py"))},
        gone=["purge"],
        import_errors=[error, stray],
        down={"dag_processor": "2026-03-02T05:59:00+00:00", "triggerer": None},
    )

    found = list(wrong_with_airflow(PLACE, sight, every_import_error=False))

    assert [(i.kind, i.subject or i.dag_id) for i in found] == [
        ("part_down", "Airflow's dag processor"),
        ("part_down", "Airflow's triggerer"),
        ("dag_gone", "purge"),
        ("import_error", "orders.py"),
    ]
    assert dict(found[0].facts) == {"Last heartbeat": "2026-03-02 05:59:00 UTC"}
    assert dict(found[3].facts) == {"Watched DAGs in it": "orders"}
    assert (found[3].stack_trace or "").endswith("ImportError: no")
    assert len(found[3].stack_trace or "") < 3000
    every = list(wrong_with_airflow(PLACE, sight, every_import_error=True))
    assert [i.subject for i in every if i.kind == "import_error"] == ["orders.py", "else.py"]


def test_the_end_is_told_without_the_stack_trace() -> None:
    """What was expected, and how long it lasted."""
    missing = PLACE.incident(
        "run_missing", "orders", facts=(("Expected", "then"), ("Timetable", "t")), stack_trace="Traceback"
    )

    over = all_clear(missing, lasted=timedelta(hours=3, minutes=20))

    assert over.over
    assert over.stack_trace is None
    assert over.facts == (("Expected", "then"), ("Lasted", "3 h 20 min"))
