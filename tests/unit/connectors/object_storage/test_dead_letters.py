"""Dead letters survive the leg that wrote them, and lie in one place when the run is over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.object_storage import DeadLetters
from airflow_batchkit.engine.dead_letters import DeadLetter, OpenDeadLetters, envelope
from airflow_batchkit.engine.exceptions import CannotResumeError, ReconciliationError, UsageError
from airflow_batchkit.engine.sink import BatchKey, Leg
from airflow_batchkit.engine.types import Rejection
from tests.support.object_storage import (
    FINISHED,
    Place,
    after_batch,
    inherited,
    leg,
    make_place,
    publication,
    records,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty folder."""
    return make_place("file", request)


def opened(place: Place, of: Leg) -> OpenDeadLetters:
    """Open the place for a leg."""
    letters = DeadLetters(place.url).open(place.context)
    letters.start(of)
    return letters


def letters_of(of: Leg, number: int, ids: Iterable[str]) -> list[DeadLetter]:
    """Make one batch's dead letters."""
    return [
        envelope(
            Rejection(
                record=record,
                stage="transform",
                error_class="record",
                error_type="ValueError",
                message="bad\nnews",
                stack_trace="line 1",
            ),
            leg=of,
            key=BatchKey(partition=0, number=number),
            at=1.5,
        )
        for record in records(ids)
    ]


def put(letters: OpenDeadLetters, of: Leg, number: int, *ids: str) -> None:
    """Keep one batch's dead letters."""
    letters.put(BatchKey(partition=0, number=number), letters_of(of, number, ids))


def settled(place: Place, job: str = "job", run: str = "run-1") -> list[str]:
    """Return the ids of all letters at their final place, in order."""
    return [
        json.loads(line)["id"]
        for name in place.names()
        if name.startswith(f"{job}/{run}/letters-")
        for line in place.content(name).splitlines()
    ]


def test_letters_are_settled_with_everything_needed_to_replay(place: Place) -> None:
    """Each line tells what failed, where and why, and holds the record's exact bytes; staging is gone."""
    of = leg("1")
    letters = opened(place, of)
    put(letters, of, 1, "a", "b")
    put(letters, of, 1, "a", "b")
    put(letters, of, 3, "c")
    report = letters.settle(publication(0, dead_lettered=3))
    assert report == {"place": f"{place.url}/job/run-1", "count": 3}
    assert settled(place) == ["a", "b", "c"]
    assert place.names() == [
        "job/run-1/letters-only-00001-0a0a0a0a.ndjson",
        "job/run-1/letters-only-00002-0a0a0a0a.ndjson",
        "job/run-1/letters.json",
    ]
    letter = json.loads(place.content(place.names()[0]).splitlines()[0])
    assert letter["record"] == {"n": "a"}
    assert (letter["batch"], letter["partition"], letter["message"]) == (1, "only", "bad\nnews")


def test_settling_again_changes_nothing(place: Place) -> None:
    """After a kill in the cleaning up the next leg settles again and counts the same."""
    of = leg("1")
    letters = opened(place, of)
    put(letters, of, 1, "a")
    assert letters.settle(publication(0, dead_lettered=1))["count"] == 1
    assert letters.settle(publication(0, dead_lettered=1))["count"] == 1
    again = opened(place, leg("2", inherited=inherited("1", FINISHED)))
    assert again.settle(publication(0, dead_lettered=1))["count"] == 1
    assert settled(place) == ["a"]


def test_only_committed_letters_of_earlier_legs_count(place: Place) -> None:
    """A batch that was done again gives its letters once."""
    first, second = leg("1"), leg("2", inherited=inherited("1", after_batch(1)))
    killed = opened(place, first)
    put(killed, first, 1, "a")
    put(killed, first, 2, "b")
    resumed = opened(place, second)
    put(resumed, second, 1, "b")
    resumed.settle(publication(0, dead_lettered=2))
    assert settled(place) == ["a", "b"]


def test_no_letters_no_objects(place: Place) -> None:
    """A run without dead letters leaves nothing at all."""
    letters = opened(place, leg("1"))
    assert letters.settle(publication(0))["count"] == 0
    assert place.names() == []


def test_letters_that_do_not_add_up_fail_the_run(place: Place) -> None:
    """A dead letter that is not there was lost: nothing is published."""
    of = leg("1")
    letters = opened(place, of)
    put(letters, of, 1, "a")
    with pytest.raises(ReconciliationError, match="2 records were dead-lettered, but 1 dead letters lie"):
        letters.settle(publication(0, dead_lettered=2))


def test_jobs_and_runs_share_a_place(place: Place) -> None:
    """Letters of another job, and of a failed run, stay where they are when a run of this one is settled."""
    failed, other = leg("8", run="run-0"), leg("9", job="dag/other task")
    put(opened(place, failed), failed, 1, "failed")
    beside = opened(place, other)
    put(beside, other, 1, "other")
    of = leg("1")
    letters = opened(place, of)
    put(letters, of, 1, "mine")
    letters.settle(publication(0, dead_lettered=1))
    beside.settle(publication(0, dead_lettered=1))
    assert settled(place) == ["mine"]
    assert settled(place, job="dag%2Fother task") == ["other"]
    assert f"job/_batchkit/run-0/{'8' * 16}/letters-00000-0000001.ndjson" in place.names()


@pytest.mark.parametrize("given_up", [0, 1])
def test_restarted_run_replaces_its_letters(place: Place, given_up: int) -> None:
    """A run that is begun anew does not leave the dead letters of its first life to be replayed."""
    before = leg("1", generation="00000000")
    first = opened(place, before)
    put(first, before, 1, "old")
    first.settle(publication(0, dead_lettered=1))
    of = leg("2")
    letters = opened(place, of)
    if given_up:
        put(letters, of, 1, "new")
    letters.settle(publication(0, dead_lettered=given_up))
    assert settled(place) == ["new"] * given_up


def test_lost_staging_is_told(place: Place) -> None:
    """When somebody removed the letters of an earlier leg the run says so instead of losing them."""
    first = leg("1")
    put(opened(place, first), first, 1, "a")
    store = place.store()
    store.delete(list(store.keys("job/_batchkit/")))
    second = opened(place, leg("2", inherited=inherited("1", after_batch(1))))
    with pytest.raises(CannotResumeError, match="is gone"):
        second.settle(publication(0, dead_lettered=1))


def test_place_is_looked_at_when_opened(place: Place) -> None:
    """A place that cannot be written fails the run at once, not when the first record is given up."""
    place.store().put("file", b"")
    with pytest.raises(UsageError, match="not a folder"):
        DeadLetters(f"{place.url}/file/x").open(place.context)
