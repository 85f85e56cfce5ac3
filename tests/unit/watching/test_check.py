"""A check from end to end, on captured answers of Airflow and with a clock of the test's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_batchkit.engine.exceptions import TransientError
from airflow_batchkit.notifications.incident import Incident
from airflow_batchkit.notifications.rendering import headline
from airflow_batchkit.watching import Watched
from tests.support.watching import MINUTES, Watch

PAUSED = "orders is paused"
NOT_PAUSED = "All clear: orders is no longer paused"


def test_nothing_is_wrong(watch: Watch) -> None:
    """Nobody is told, and the outcome says so."""
    outcome = watch.check()

    assert outcome.all_is_well
    assert outcome.dags == 1
    assert watch.news() == []


def test_an_incident_is_told_once_and_its_end_once(watch: Watch) -> None:
    """However often it is checked in between; the end says how long it lasted."""
    (dag,) = watch.airflow.dags
    dag["is_paused"] = True
    assert [watch.check().all_is_well for _ in range(3)] == [False] * 3
    assert watch.news() == [PAUSED]

    dag["is_paused"] = False
    watch.check()
    assert watch.news() == []
    outcome = watch.check()
    assert watch.news() == [NOT_PAUSED]
    assert [headline(incident) for incident in outcome.over] == [NOT_PAUSED]
    assert dict(watch.phone.incidents[-1].facts)["Lasted"] == "15 min"

    assert watch.check().all_is_well
    assert watch.news() == []


def test_what_comes_and_goes_is_one_incident(watch: Watch) -> None:
    """What is over for less than three minutes is not over."""
    (dag,) = watch.airflow.dags
    for number in range(20):
        dag["is_paused"] = number % 2 == 0
        watch.check(after=MINUTES)
    assert watch.news() == [PAUSED]

    dag["is_paused"] = False
    for _ in range(4):
        watch.check(after=MINUTES)
    assert watch.news() == [NOT_PAUSED]


def test_a_run_that_nobody_made(watch: Watch) -> None:
    """Told after its grace, though Airflow announces the next one by then; over when there is a run again."""
    (dag,) = watch.airflow.dags
    watch.check()
    dag["next_dagrun_run_after"] = "2026-11-25T00:00:00Z"
    watch.check(after=timedelta(hours=24))
    assert watch.news() == []
    for _ in range(4):
        watch.check()
    assert watch.news() == ["orders did not run"]

    watch.airflow.add_run(run_after="2026-11-24T00:00:00Z", state="running", end_date=None)
    watch.check()
    watch.check()
    assert watch.news() == ["All clear: orders runs again"]


def test_a_failed_run_that_is_cleared_is_not_over(watch: Watch) -> None:
    """Its new end decides: neither the clear nor the success of the day before is good news."""
    watch.airflow.add_run(run_after="2026-11-23T00:02:00Z", state="failed", end_date="2026-11-23T00:04:00Z")
    watch.check()
    assert watch.news() == ["orders failed and has not succeeded since"]

    failed = watch.airflow.runs[-1]
    failed.update(state="running", end_date=None)
    watch.check()
    watch.check()
    assert watch.news() == []

    failed.update(state="success", end_date="2026-11-23T00:16:00Z")
    watch.check()
    watch.check()
    assert watch.news() == ["All clear: orders has succeeded since"]


def test_airflow_is_away(watch: Watch) -> None:
    """Told when it lasts; what was wrong before stays as it was, and is not over because nobody can tell."""
    (dag,) = watch.airflow.dags
    dag["is_paused"] = True
    watch.check()
    assert watch.news() == [PAUSED]

    watch.airflow.planned.extend([(503, {}, b"")] * 6)
    assert watch.check().dags is None
    assert watch.news() == []
    watch.check()
    assert watch.news() == ["Airflow does not answer"]
    assert "status 503" in (watch.phone.incidents[-1].error_message or "")

    watch.check()
    watch.check()
    assert watch.news() == ["All clear: Airflow answers again"]


def test_an_airflow_that_is_deployed_disturbs_nobody(watch: Watch) -> None:
    """Away in one check and back in the next is no incident, and has no end either."""
    watch.airflow.planned.extend([(503, {}, b"")] * 3)
    assert not watch.check().all_is_well
    assert watch.check().all_is_well
    watch.check()

    assert watch.news() == []


def test_airflow_does_not_let_the_watch_in(watch: Watch) -> None:
    """An expired token is told apart from a dead server."""
    watch.airflow.token = "another"
    watch.check()
    watch.check()

    assert watch.news() == ["Airflow does not let the watch in"]
    assert "status 401" in (watch.phone.incidents[-1].error_message or "")


def test_a_part_of_airflow_is_down(watch: Watch) -> None:
    """The scheduler is told when it lasts; a triggerer that this Airflow never had is not missed."""
    watch.airflow.health["scheduler"]["status"] = "unhealthy"
    watch.airflow.health["triggerer"] = {"status": None, "latest_triggerer_heartbeat": None}
    watch.check()
    assert watch.news() == []
    watch.check()
    assert watch.news() == ["Airflow's scheduler is down"]

    watch.airflow.health["scheduler"]["status"] = "healthy"
    watch.check()
    watch.check()
    assert watch.news() == ["All clear: Airflow's scheduler is up again"]


def test_a_dag_that_was_seen_before_is_gone(watch: Watch) -> None:
    """Told once, over when it comes back; after a week the watch forgets it without a word."""
    watch.expectations = {"watched": [Watched(tags=["nightly"])]}
    watch.check()
    dags, watch.airflow.dags = watch.airflow.dags, []
    watch.check()
    assert watch.news() == ["orders is not in Airflow"]

    watch.airflow.dags = dags
    watch.check()
    watch.check()
    assert watch.news() == ["All clear: orders is in Airflow again"]

    watch.airflow.dags = []
    watch.check()
    assert watch.news() == ["orders is not in Airflow"]
    assert not watch.check(after=timedelta(days=6)).all_is_well
    assert watch.check(after=timedelta(days=2)).all_is_well
    assert watch.news() == []


def test_an_id_that_airflow_never_knew_is_told(watch: Watch) -> None:
    """A DAG that is named has to exist, from the first check on, for ever."""
    watch.expectations = {"watched": [Watched(dags=["orders", "items"])]}
    watch.check()
    watch.check(after=timedelta(days=30))

    assert watch.news() == ["items is not in Airflow", "orders did not run"]


def test_a_dag_that_is_not_watched_any_more_is_dropped(watch: Watch) -> None:
    """Its incident ends without an all-clear, which would be a lie."""
    (dag,) = watch.airflow.dags
    dag["is_paused"] = True
    watch.expectations = {"watched": [Watched(tags=["nightly"])]}
    watch.check()
    dag["tags"] = []

    assert watch.check().all_is_well
    watch.check()
    assert watch.news() == [PAUSED]


def test_pausing_a_dag_is_no_end_of_what_was_wrong_with_it(watch: Watch) -> None:
    """A failure waits for the DAG to come back; a run that a paused DAG does not make is not missing."""
    (dag,) = watch.airflow.dags
    watch.airflow.add_run(run_after="2026-11-23T00:02:00Z", state="failed", end_date="2026-11-23T00:04:00Z")
    watch.check()
    watch.check(after=timedelta(hours=25))
    assert watch.news() == ["orders failed and has not succeeded since", "orders did not run"]

    dag["is_paused"] = True
    watch.check()
    watch.check()
    assert watch.news() == [PAUSED]


def test_in_maintenance_nothing_new_is_told(watch: Watch) -> None:
    """Nor in the grace after it; what is still wrong then is told, and good news always is."""
    (dag,) = watch.airflow.dags
    window = "Mon 01:00-02:00 UTC"
    watch.expectations = {
        "watched": [Watched(maintenance=[window])],
        "airflow": Watched(maintenance=[window]),
    }
    watch.now = datetime(2026, 11, 23, 0, 50, tzinfo=UTC)
    dag["is_paused"] = True
    watch.check()
    assert watch.news() == [PAUSED]
    watch.check()

    dag["is_paused"] = False
    watch.airflow.health["scheduler"]["status"] = "unhealthy"
    watch.airflow.add_run(run_after="2026-11-23T01:01:00Z", state="failed", end_date="2026-11-23T01:02:00Z")
    watch.check()
    watch.check()
    assert watch.news() == [NOT_PAUSED]

    watch.now = datetime(2026, 11, 23, 2, 9, tzinfo=UTC)
    watch.check()
    assert watch.news() == []
    watch.check()
    watch.check()
    assert watch.news() == ["orders failed and has not succeeded since", "Airflow's scheduler is down"]


def test_what_could_not_be_told_is_told_by_the_next_check(watch: Watch) -> None:
    """Slack down: nothing is lost and nothing comes twice, also what is over by then."""
    (dag,) = watch.airflow.dags
    dag["is_paused"] = True
    watch.phone.in_reach = False
    outcome = watch.check()
    assert outcome.not_sent == "out of reach"
    assert not outcome.all_is_well

    dag["is_paused"] = False
    watch.check()
    assert not watch.check().all_is_well
    watch.phone.in_reach = True
    watch.check()
    assert watch.news() == [PAUSED, NOT_PAUSED]
    assert watch.check().all_is_well
    assert watch.news() == []


def test_a_check_that_dies_between_two_messages_repeats_none(watch: Watch) -> None:
    """The state is kept after each message."""
    for dag_id in ("items", "users"):
        watch.airflow.add_dag(dag_id, is_paused=True)
    tell = watch.phone.tell

    def tell_one_and_die(incident: Incident) -> None:
        if watch.phone.heard:
            raise KeyboardInterrupt
        tell(incident)

    watch.phone.tell = tell_one_and_die  # type: ignore[method-assign]  # for one check
    with pytest.raises(KeyboardInterrupt):
        watch.check()
    watch.phone.tell = tell  # type: ignore[method-assign]  # as it was
    watch.check()

    assert sorted(watch.news()) == ["items is paused", "users is paused"]


def test_what_happens_to_many_at_once_is_one_message(watch: Watch) -> None:
    """Six paused DAGs are one message that names them, and one all-clear."""
    names = [f"dag_{n}" for n in range(6)]
    for name in names:
        watch.airflow.add_dag(name, is_paused=True)
    watch.check()
    assert watch.news() == ["each of 6 DAGs is paused"]
    assert dict(watch.phone.incidents[-1].facts)["Which"] == ", ".join(names)

    for dag in watch.airflow.dags:
        dag["is_paused"] = False
    watch.check()
    watch.check()
    assert watch.news() == ["All clear: each of 6 DAGs is no longer paused"]


def test_a_damaged_state_is_said_and_begun_anew(watch: Watch) -> None:
    """What is wrong now is told again: better than never."""
    (dag,) = watch.airflow.dags
    dag["is_paused"] = True
    watch.check()
    for damaged in ("{", '{"version": 99}', '{"incidents": {"x": 1}}'):
        watch.store.values["watch"] = damaged
        (note,) = watch.check().notes
        assert "begun anew" in note

    assert watch.news() == [PAUSED] * 4


def test_a_state_that_cannot_be_kept_tells_nothing(watch: Watch) -> None:
    """Otherwise each check would tell the same again."""
    (dag,) = watch.airflow.dags
    dag["is_paused"] = True

    def refuse(_key: str, _stored: str) -> None:
        raise TransientError("disk full")

    watch.store.save = refuse  # type: ignore[method-assign, assignment]  # a store that is full
    with pytest.raises(TransientError, match="disk full"):
        watch.check()
    assert watch.news() == []


def test_the_outcome_is_json(watch: Watch) -> None:
    """Machines read the kind, the DAG, since when, and the facts."""
    (dag,) = watch.airflow.dags
    dag["is_paused"] = True

    (incident,) = watch.check().to_dict()["going_on"]

    assert incident == {
        "since": "2026-11-23T00:10:00+00:00",
        "told": True,
        "kind": "dag_paused",
        "dag_id": "orders",
        "url": "https://airflow.example/dags/orders",
        "Last success": "2026-11-23 00:01:00 UTC",
    }
