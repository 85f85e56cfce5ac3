"""Dead letters survive the leg that wrote them, and lie in one place when the run is over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.connectors.object_storage import DeadLetters
from airflow_batchkit.engine.dead_letters import DeadLetter, OpenDeadLetters, envelope
from airflow_batchkit.engine.exceptions import (
    CannotResumeError,
    PermanentError,
    ReconciliationError,
    StoppedError,
    SupersededError,
    UsageError,
)
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


def test_a_run_over_a_part_leaves_the_letters_of_the_whole_run(place: Place) -> None:
    """It has the same name; its letters lie beside, where the same commands find them."""
    whole, unfinished = leg("1"), leg("3", run="run-2")
    first = opened(place, whole)
    put(first, whole, 1, "a", "b")
    first.settle(publication(0, dead_lettered=2))
    put(opened(place, unfinished), unfinished, 1, "c")
    for token, run in (("2", "run-1"), ("4", "run-2")):
        part = leg(token, run=run, mode="partial")
        letters = opened(place, part)
        put(letters, part, 1, "d")
        told = letters.settle(publication(0, dead_lettered=1))
        assert told == {"place": f"{place.url}/_partial/job/{run}", "count": 1}
        assert settled(place.below("_partial"), run=run) == ["d"]
    assert settled(place) == ["a", "b"]
    resumed = opened(place, leg("5", run="run-2", inherited=inherited("3", FINISHED)))
    assert resumed.settle(publication(0, dead_lettered=1))["count"] == 1
    assert settled(place, run="run-2") == ["c"]


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


def head(place: Place) -> dict[str, Any]:
    """Return what ``letters.json`` says of the usual run."""
    found: dict[str, Any] = json.loads(place.content("job/run-1/letters.json"))
    return found


def test_letters_of_a_failed_run_are_shown_and_stay_staged(place: Place) -> None:
    """Only what the checkpoint covers, marked as not complete; the run that goes on still has all of it."""
    of = leg("1")
    letters = opened(place, of)
    put(letters, of, 1, "a", "b")
    put(letters, of, 2, "beyond the checkpoint")
    failed = publication(0, after_batch(1), dead_lettered=2)
    assert letters.reveal(failed) == 2
    assert settled(place) == ["a", "b"]
    assert head(place)["complete"] is False
    before = place.names()
    assert letters.reveal(failed) == 2
    assert place.names() == before
    assert f"job/_batchkit/run-1/{'1' * 16}/letters-00000-0000002.ndjson" in before

    second = leg("2", inherited=inherited("1", after_batch(1)))
    resumed = opened(place, second)
    put(resumed, second, 1, "c")
    assert resumed.settle(publication(0, dead_lettered=3))["count"] == 3
    assert settled(place) == ["a", "b", "c"]
    assert head(place)["complete"] is True
    assert [name for name in place.names() if "_batchkit" in name] == []


def test_a_run_that_gives_up_nothing_more_completes_what_was_shown(place: Place) -> None:
    """Its letters are the same, and are marked as those of a completed run."""
    of = leg("1")
    letters = opened(place, of)
    put(letters, of, 1, "a")
    letters.reveal(publication(0, after_batch(1), dead_lettered=1))
    resumed = opened(place, leg("2", inherited=inherited("1", after_batch(1))))
    assert resumed.settle(publication(0, dead_lettered=1))["count"] == 1
    assert settled(place) == ["a"]
    assert head(place)["complete"] is True


def test_a_run_that_fails_again_shows_more(place: Place) -> None:
    """Each failure shows what was given up so far."""
    first, second = leg("1"), leg("2", inherited=inherited("1", after_batch(1)))
    letters = opened(place, first)
    put(letters, first, 1, "a")
    letters.reveal(publication(0, after_batch(1), dead_lettered=1))
    resumed = opened(place, second)
    put(resumed, second, 1, "b")
    assert resumed.reveal(publication(0, after_batch(1), dead_lettered=2)) == 2
    assert settled(place) == ["a", "b"]
    assert head(place)["token"] == second.token


def test_letters_of_a_published_output_are_not_hidden_by_a_run_that_fails(place: Place) -> None:
    """They can still be replayed: a run that was begun anew, and failed, has published nothing."""
    before = leg("1", generation="00000000")
    first = opened(place, before)
    put(first, before, 1, "old")
    first.settle(publication(0, dead_lettered=1))
    of = leg("2")
    letters = opened(place, of)
    put(letters, of, 1, "new")
    with pytest.raises(PermanentError, match="names the letters of an output that is published"):
        letters.reveal(publication(0, after_batch(1), dead_lettered=1))
    assert settled(place) == ["old"]
    letters.settle(publication(0, dead_lettered=1))
    assert settled(place) == ["new"]


def test_letters_of_an_abandoned_failure_are_replaced(place: Place) -> None:
    """A run that failed, was begun anew and failed again shows the letters of its second life."""
    before = leg("1", generation="00000000")
    first = opened(place, before)
    put(first, before, 1, "old")
    first.reveal(publication(0, after_batch(1), dead_lettered=1))
    of = leg("2")
    letters = opened(place, of)
    put(letters, of, 1, "new")
    assert letters.reveal(publication(0, after_batch(1), dead_lettered=1)) == 1
    assert [part["key"] for part in head(place)["parts"]] == ["letters-only-00001-0a0a0a0a.ndjson"]
    letters.settle(publication(0, dead_lettered=1))
    assert settled(place) == ["new"]


@pytest.mark.parametrize("ends", ["reveal", "settle"])
def test_a_leg_that_slept_changes_nothing_that_a_newer_one_has_shown(place: Place, ends: str) -> None:
    """It is told so; what readers see stays that of the newer leg."""
    first, second = leg("1"), leg("2", inherited=inherited("1", after_batch(1)))
    asleep = opened(place, first)
    put(asleep, first, 1, "a")
    resumed = opened(place, second)
    put(resumed, second, 1, "b")
    getattr(resumed, ends)(publication(0, after_batch(1), dead_lettered=2))
    before = [(name, place.content(name)) for name in place.names()]
    with pytest.raises(SupersededError, match=f"leg {second.token} has shown the dead letters"):
        asleep.reveal(publication(0, after_batch(1), dead_lettered=1))
    assert [(name, place.content(name)) for name in place.names()] == before


def test_a_failure_after_settling_changes_nothing(place: Place) -> None:
    """The letters are in their place already when publishing fails for good."""
    of = leg("1")
    letters = opened(place, of)
    put(letters, of, 1, "a")
    letters.settle(publication(0, dead_lettered=1))
    before = [(name, place.content(name)) for name in place.names()]
    assert letters.reveal(publication(0, dead_lettered=1)) == 1
    assert [(name, place.content(name)) for name in place.names()] == before


def test_letters_that_do_not_add_up_are_not_shown(place: Place) -> None:
    """Readers see all that the checkpoint counts, or nothing."""
    of = leg("1")
    letters = opened(place, of)
    put(letters, of, 1, "a")
    with pytest.raises(ReconciliationError, match="2 records were dead-lettered, but 1 dead letters lie"):
        letters.reveal(publication(0, after_batch(1), dead_lettered=2))
    assert "job/run-1/letters.json" not in place.names()


@pytest.mark.parametrize("ends", ["reveal", "settle"])
def test_a_stop_ends_the_copying(place: Place, ends: str) -> None:
    """Many letters take a while: a worker that must go does not wait for them; the next leg does it again."""
    of = leg("1")
    letters = opened(place, of)
    for number in range(1, 4):
        put(letters, of, number, str(number))
    asked = publication(0, dead_lettered=3, stop_asked=lambda: "a deploy")
    with pytest.raises(StoppedError, match="a deploy"):
        getattr(letters, ends)(asked)
    assert "job/run-1/letters.json" not in place.names()
    assert letters.settle(publication(0, dead_lettered=3))["count"] == 3
