"""The dead letters of a run that fails for good: seen at once, and settled when the run goes on."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from typing_extensions import override

from airflow_batchkit.engine.exceptions import (
    ErrorBudgetExceededError,
    PermanentError,
    RecordError,
    StoppedError,
    TransientError,
)
from airflow_batchkit.engine.listener import Listener
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, ErrorBudget
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.testing.doubles import made_up_records
from tests.support.legs import KEY, HurryingClock, World, at

FIRST = [str(number) for number in range(1, 12, 2)]


def odd_fails(document: dict[str, Any]) -> dict[str, Any]:
    """Give up every other record."""
    if document["id"] % 2:
        raise RecordError("odd")
    return document


def small_world(**settings: Any) -> World:
    """Make a run that gives up one record of each batch of two."""
    return World(
        {"a": made_up_records(20)},
        sink={"idempotent": False},
        clock=HurryingClock(),
        **{
            "transform": odd_fails,
            "batch": BatchPolicy(max_records=2),
            "error_budget": ErrorBudget(max_dead_letters=5),
            **settings,
        },
    )


def revealed(world: World) -> list[str]:
    """Return the ids that readers see of a run that failed."""
    return [letter.id for letter in world.box.revealed]


def test_letters_of_an_exceeded_budget_are_seen_and_settled_by_the_run_that_goes_on() -> None:
    """What the checkpoint covers is shown at once; cleared, the run settles all of them, none twice."""
    world = small_world()
    job = world.job(dead_letters=world.letters)
    with pytest.raises(ErrorBudgetExceededError):
        world.run(job)
    assert revealed(world) == FIRST
    assert world.stood.counts.dead_lettered == len(FIRST)
    assert world.box.settled == []

    with pytest.raises(ErrorBudgetExceededError):
        world.run(job)
    assert revealed(world) == FIRST, "an Airflow retry changes nothing"

    world.run(job, identity=at("cleared"))

    assert revealed(world) == []
    assert [letter.id for letter in world.box.settled] == [str(number) for number in range(1, 20, 2)]


def test_any_permanent_error_shows_what_was_given_up_before_it(caplog: pytest.LogCaptureFixture) -> None:
    """The log says where the letters are, whatever it was that ended the run."""
    world = small_world(error_budget=ErrorBudget(max_dead_letters=100))
    world.target.script.fail("write", PermanentError("the index is gone"), at=4)

    with caplog.at_level(logging.INFO), pytest.raises(PermanentError, match="the index is gone"):
        world.run(world.job(dead_letters=world.letters))

    assert revealed(world) == ["1", "3", "5"]
    assert (
        "3 records given up: the dead letters are at memory://letters; to see them: "
        "batchkit dead-letters show memory://letters --job job --run run-1"
    ) in caplog.text
    assert world.target.owner is None, "the target is free for whoever mends it"


def test_without_letters_there_is_nothing_to_show() -> None:
    """A run that fails for another reason leaves its place as it was."""
    world = small_world(transform=None)
    world.target.script.fail("write", PermanentError("the index is gone"), at=4)
    with pytest.raises(PermanentError):
        world.run(world.job(dead_letters=world.letters))

    assert world.box.script.calls("reveal") == 0


@pytest.mark.parametrize("error", [TransientError("503"), StoppedError("a deploy")], ids=["503", "stop"])
def test_a_run_that_goes_on_by_itself_shows_nothing_yet(error: Exception) -> None:
    """Only a run that fails for good does: the others settle their letters soon."""
    world = small_world(batch_retry=BatchRetry(max_tries=1))
    world.target.script.fail("write", error, at=4, times=99)
    with pytest.raises(StoppedError):
        world.run(world.job(dead_letters=world.letters))

    assert world.stood.counts.dead_lettered == 3
    assert world.box.script.calls("reveal") == 0


def test_a_run_over_a_part_shows_nothing() -> None:
    """A person looks on at such a run; its letters never stand where those of the whole one do."""
    world = small_world(max_batches=8)
    with pytest.raises(ErrorBudgetExceededError, match=r"RecordError × 6 .*; a clear of the task") as caught:
        world.run(world.job(dead_letters=world.letters))

    assert "to see them" not in str(caught.value)
    assert world.box.script.calls("reveal") == 0


def test_a_place_that_fails_does_not_hide_why_the_run_did(caplog: pytest.LogCaptureFixture) -> None:
    """The run fails with its own reason; that of the place is in the log, with its stack trace."""
    world = small_world()
    world.box.script.fail("reveal", PermanentError("the bucket is full"), times=99)
    job = world.job(dead_letters=world.letters)
    with pytest.raises(ErrorBudgetExceededError, match="6 dead letters, 5 allowed"):
        world.run(job)

    assert "cannot be shown at memory://letters; the run still has them" in caplog.text
    assert "PermanentError: the bucket is full" in caplog.text
    assert world.stood.status == "failed"
    assert world.target.owner is None
    world.run(job, identity=at("cleared"))
    assert len(world.box.settled) == 10


def test_a_place_that_is_away_for_a_moment_is_asked_again() -> None:
    """As every other call to it."""
    world = small_world()
    world.box.script.fail("reveal", TransientError("503"), times=2)
    with pytest.raises(ErrorBudgetExceededError):
        world.run(world.job(dead_letters=world.letters))

    assert revealed(world) == FIRST


def test_a_stop_ends_the_waiting_for_the_place() -> None:
    """A worker that is asked to stop is not held by a place that does not answer."""
    world = small_world()
    stop = Stop()
    world.box.script.fail("reveal", TransientError("503"), times=99)
    world.target.script.fail("write", PermanentError("gone"), at=4)

    class Asks(Listener):
        @override
        def on_retry(self, what: str, error: BaseException, tries: int, wait: float) -> None:
            stop.ask("a deploy")

    with pytest.raises(PermanentError, match="gone"):
        world.run(world.job(dead_letters=world.letters), stop=stop, listeners=[Asks()])

    assert world.box.script.calls("reveal") == 1


def test_what_could_not_be_saved_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Readers never see more than the checkpoint covers: the next leg does the rest again."""
    world = small_world(batch_retry=BatchRetry(max_tries=1))
    world.target.script.fail("write", PermanentError("gone"), at=4)
    saves = 1 + 3  # the claim, and one for each window
    world.store.script.fail("save", TransientError("the store is away"), at=saves + 1, times=99)
    with pytest.raises(PermanentError, match="gone"):
        world.run(world.job(dead_letters=world.letters))

    assert "the last save of this leg failed" in caplog.text
    assert world.box.script.calls("reveal") == 0
    assert world.store.values[KEY]
