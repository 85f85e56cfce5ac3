"""Kill anywhere, fail anywhere, on doubles: at each side effect in turn; new legs finish the run."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    PermanentError,
    PushbackError,
    RecordError,
    TransientError,
)
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.policies import ErrorBudget
from airflow_batchkit.engine.types import UnreadableRecord
from airflow_batchkit.testing.doubles import made_up_records
from tests.support.legs import KEY, PATIENT, Death, HurryingClock, KilledError, World
from tests.support.troubles import Failing

UNREADABLE = UnreadableRecord("13", b'{"readable":{},"unreadable":{}}', message="it cannot be read")


def eventful(document: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Filter some, spread some, fail some: each outcome has its own place to be lost or doubled."""
    if document["id"] % 11 == 0:
        raise RecordError("divisible by eleven")
    if document["id"] % 7 == 0:
        return None
    return [document] * (2 if document["id"] % 9 == 0 else 1)


@dataclass(frozen=True)
class Shape:
    """What differs between the sweeps."""

    style: str
    idempotent: bool
    readers: int
    window_records: int = 20

    def world(self) -> World:
        """Make a run of three partitions, the last one empty."""
        world = World(
            {
                "a": [*made_up_records(12), UNREADABLE, *made_up_records(34, first=14)],
                "b": made_up_records(30, prefix="b-", first=100),
                "c": [],
            },
            source={"style": self.style, "window_records": self.window_records},
            sink={"idempotent": self.idempotent},
            clock=HurryingClock(),
            timeouts=PATIENT,
            readers=self.readers,
            transform=eventful,
            error_budget=ErrorBudget(max_dead_letters=100),
        )
        world.target.rejects = {"5", "b-110"}
        return world


SHAPES = [
    pytest.param(Shape("records", idempotent=True, readers=2), id="records"),
    pytest.param(Shape("records", idempotent=False, readers=1), id="records-one-by-one"),
    pytest.param(Shape("windows", idempotent=True, readers=2), id="windows"),
    pytest.param(Shape("windows", idempotent=True, readers=1, window_records=100), id="one-large-window"),
]


def end(world: World) -> tuple[Any, ...]:
    """Return everything that a run leaves behind, for comparison; fails when it left what it should not."""
    assert world.stood.status == "completed"
    assert world.target.staged == {}, "staged parts were left over"
    assert world.box.staged == {}, "staged dead letters were left over"
    assert world.box.revealed == [], "letters are still shown as those of a failed run"
    assert {key for key, _ in world.store.history} == {KEY}
    assert world.target.published is not None
    counts = {name: count for name, count in world.target.published.counts.items() if name != "retries"}
    return (
        world.ids,
        [record.body for record in world.target.published.records],
        sorted((letter.id, bytes(letter.record)) for letter in world.box.settled),
        counts,
        world.stood.errors,
    )


@functools.cache
def uninterrupted(shape: Shape) -> tuple[tuple[Any, ...], list[str]]:
    """Run once without a kill: the output to compare with, and the moments to kill at."""
    world = shape.world()
    with Death().lurking() as death:
        world.run(world.job(dead_letters=world.letters))
    return end(world), death.moments


@pytest.mark.fault("sigkill", at="engine")
@pytest.mark.fault("publish-killed", at="engine")
@pytest.mark.parametrize("shape", SHAPES)
def test_killed_at_any_effect_nothing_is_lost_doubled_or_left(shape: Shape) -> None:
    """One kill, at each moment of the run in turn: the output is that of the run that nobody killed."""
    expected, moments = uninterrupted(shape)
    assert {moment.removeprefix("after ") for moment in moments} >= {
        "sink.start",
        "sink.put",
        "sink.publish",
        "sink.clean",
        "sink.release",
        "dead_letters.start",
        "dead_letters.put",
        "dead_letters.settle",
        "checkpoint.save",
    }
    for moment in range(1, len(moments) + 1):
        world = shape.world()
        job = world.job(dead_letters=world.letters)
        with Death(moment).lurking() as death:
            try:
                world.run(job)
            except KilledError:
                death.bury()
            world.run_to_end(job)
        assert end(world) == expected, (
            f"killed at moment {moment} ({(death.moments[moment - 1 :] or ['?'])[0]})"
        )
        assert len(world.target.history) == 1, f"published twice, killed at moment {moment}"


@pytest.mark.fault("sigkill", at="engine")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stride", [3, 5, 8])
def test_killed_again_and_again_the_run_still_ends_right(shape: Shape, stride: int) -> None:
    """Every leg is killed after a few more effects than the one before it: still the same output."""
    expected, _ = uninterrupted(shape)
    world = shape.world()
    job = world.job(dead_letters=world.letters)
    for leg in range(200):
        with Death(stride + leg).lurking() as death:
            try:
                world.run_to_end(job)
            except KilledError:
                death.bury()
                continue
        break

    assert leg >= 2
    assert world.stood.legs >= 2
    assert end(world) == expected


@pytest.mark.fault("answer-lost", at="engine")
@pytest.mark.fault("refused", at="engine")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "error", [TransientError("503"), PushbackError("429", 0.001), PermanentError("403")], ids=repr
)
def test_failed_at_any_effect_nothing_is_lost_doubled_or_left(error: BatchkitError, shape: Shape) -> None:
    """One call fails undone, or is done and its answer lost: the run ends as if nothing had been.

    What passes is sat out in the leg, or by the next. What does not pass, or comes before anything could
    begin, ends the run by its own name; the next leg goes on.
    """
    expected, moments = uninterrupted(shape)
    for moment in range(1, len(moments) + 1):
        world = shape.world()
        job = world.job(dead_letters=world.letters)
        failing = Failing(moment, error)
        with probing(failing), contextlib.suppress(type(error)):
            world.run_to_end(job)
        where = f"{error!r} at moment {moment} ({(failing.moments[moment - 1 :] or ['?'])[0]})"
        world.run_to_end(job)
        assert end(world) == expected, where
        assert len(world.target.history) == 1, f"published twice, {where}"
