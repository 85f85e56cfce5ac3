"""When a leg comes back by itself, when the run fails instead, and the limits on its time."""

from __future__ import annotations

import itertools
import time
from datetime import timedelta
from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import (
    NoProgressError,
    PushbackError,
    RunTimeoutError,
    StoppedError,
    TransientError,
)
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, RateLimit, Timeouts
from airflow_batchkit.testing.doubles import made_up_records
from tests.support.legs import HurryingClock, World

ONCE = BatchRetry(max_tries=1)


class HangsOnce:
    """A transform that hangs at one of its calls, for as long as it is let.

    :param at: which call, from 1.
    """

    def __init__(self, *, at: int) -> None:
        self._at = at
        self._calls = 0

    def __call__(self, document: dict[str, Any]) -> dict[str, Any]:
        self._calls += 1
        until = time.monotonic() + 20
        while self._calls == self._at and time.monotonic() < until:
            time.sleep(0.01)
        return document


def test_a_run_that_is_stuck_pauses_longer_and_then_fails() -> None:
    """60 s, 120 s, then the third failure at one cursor counts as a failure, and the count begins anew."""
    world = World(batch_retry=ONCE)
    world.target.script.fail("write", TransientError("503"), times=99)
    pauses = []
    for _ in range(2):
        with pytest.raises(StoppedError, match=r"TransientError: 503") as caught:
            world.run()
        pauses.append(caught.value.resume_after)

    with pytest.raises(TransientError, match=r"^503$"):
        world.run()

    assert pauses == [60.0, 120.0]
    assert world.stood.stuck_legs == 0
    assert world.stood.status == "running", "the next try goes on"


def test_a_leg_that_moved_is_not_stuck() -> None:
    """Any number of transient failures is sat out as long as the cursor moves between them."""
    world = World({"a": made_up_records(100)}, batch_retry=ONCE, clock=HurryingClock())
    for number in range(2, 40, 2):
        world.target.script.fail("write", TransientError("503"), at=number)
    job = world.job(
        batch=BatchPolicy(max_records=10), sink=type(world.sink)(target=world.target, idempotent=False)
    )
    report = world.run_to_end(job, max_stuck_legs=2)

    assert report.legs > 8
    assert len(world.ids) == 100


def test_a_stop_after_progress_ends_being_stuck() -> None:
    """Failures count only in a row at one cursor: a leg that moved and was stopped is between them."""
    world = World(batch_retry=ONCE, clock=HurryingClock(), sink={"idempotent": False})
    world.target.script.fail("write", TransientError("503"), at=1, times=2)
    world.target.script.fail("write", StoppedError("deploy"), at=4)
    for _ in range(3):
        with pytest.raises(StoppedError):
            world.run()

    assert world.stood.counts.read == 10
    assert world.stood.stuck_legs == 0


def test_a_server_that_asks_for_a_longer_pause_gets_it() -> None:
    """The pause between two legs is never shorter than what the other side asked for."""
    world = World(batch_retry=ONCE)
    world.target.script.fail("write", PushbackError("429", 59.0))
    with pytest.raises(StoppedError) as caught:
        world.run(max_wait_in_slot=1.0)
    assert caught.value.resume_after == 60.0

    world.target.script.fail("write", PushbackError("429", 500.0), at=world.target.script.calls("write") + 1)
    with pytest.raises(StoppedError) as caught:
        world.run()
    assert caught.value.resume_after == 500.0


@pytest.mark.parametrize("asked", [86_400.0, float("inf")])
def test_a_server_that_asks_for_a_day_is_asked_again_in_an_hour(asked: float) -> None:
    """The leg ends at once, and the run comes back: for longer than that nobody waits unasked."""
    world = World()
    world.target.script.fail("write", PushbackError("429", asked))
    with pytest.raises(StoppedError) as caught:
        world.run()
    assert caught.value.resume_after == 3600.0
    world.run()
    assert len(world.ids) == 45


def test_a_run_has_at_most_so_many_legs() -> None:
    """The last allowed leg does not come back by itself."""
    world = World(batch_retry=ONCE)
    world.target.script.fail("write", TransientError("503"), times=99)
    with pytest.raises(StoppedError):
        world.run(max_legs=2, max_stuck_legs=9)
    with pytest.raises(TransientError):
        world.run(max_legs=2, max_stuck_legs=9)


@pytest.mark.fault("hung", at="engine")
def test_no_progress_for_too_long_ends_the_leg_and_shows_where_it_hangs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A read that hangs under a live process is noticed; the message has one line, the log has the stacks."""
    world = World(
        timeouts=Timeouts(no_progress=timedelta(seconds=5)), clock=HurryingClock(step=0.05), batch_retry=ONCE
    )
    world.log.script.block("page:a", at=2)

    with pytest.raises(
        StoppedError,
        match=r"no cursor moved for 5 s \(Timeouts.no_progress\): batchkit-read-a in script.py:\d+;",
    ) as caught:
        world.run()

    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, NoProgressError)
    assert "-- batchkit-read-a" in caplog.text
    assert "hold" in caplog.text


def test_a_transform_that_hangs_ends_the_leg() -> None:
    """It runs in the loop's own thread, which then cannot look at the time: another thread does."""
    world = World(
        transform=HangsOnce(at=25),
        timeouts=Timeouts(no_progress=timedelta(seconds=1.5)),
        sink={"idempotent": False},
    )
    with pytest.raises(StoppedError, match=r"LoopHangsError: the loop hung .* in the transform"):
        world.run()
    assert world.stood.counts.read in {10, 20}, "what was done before it is kept"
    assert world.run().counts["read"] == 45
    assert len(world.ids) == 45


def test_a_wait_for_the_rate_limit_is_no_lack_of_progress() -> None:
    """Waiting on purpose is left out of the account."""
    world = World(
        {"a": made_up_records(3)},
        source={"page_records": 1},
        throttle=RateLimit(records_per_second=0.8),
        timeouts=Timeouts(no_progress=timedelta(seconds=1)),
    )
    assert world.run().legs == 1


def test_a_run_that_works_for_too_long_fails() -> None:
    """The limit counts over all legs; a clear after raising it goes on."""
    clock = HurryingClock(step=0.2)
    world = World({"a": made_up_records(200)}, timeouts=Timeouts(run=timedelta(seconds=2)), clock=clock)
    with pytest.raises(RunTimeoutError, match=r"Timeouts.run"):
        world.run()
    with pytest.raises(RunTimeoutError):
        world.run()
    assert world.stood.active_seconds > 2

    report = world.run(world.job(timeouts=Timeouts(run=timedelta(hours=1))))
    assert report.counts["read"] == 200


def test_the_limit_of_a_run_counts_the_work_of_many_short_legs() -> None:
    """Each leg stays far below it, and the hours between them do not count; together they reach it."""
    clock = HurryingClock(step=0.2)
    world = World(
        {"a": made_up_records(2000)}, timeouts=Timeouts(run=timedelta(seconds=60)), clock=clock,
        sink={"idempotent": False},
    )  # fmt: skip
    for number in range(3, 200, 3):
        world.target.script.fail("write", StoppedError("deploy", 3600.0), at=number)
    worked: list[float] = []

    def leg_after_leg() -> None:
        while True:
            with pytest.raises(StoppedError):
                world.run()
            clock.advance(3600)
            worked.append(world.stood.active_seconds)

    with pytest.raises(RunTimeoutError, match=r"the run worked for 6\d s, at most 60 s are allowed"):
        leg_after_leg()
    assert len(worked) > 3
    assert worked == sorted(worked)
    assert max(after - before for before, after in itertools.pairwise([0.0, *worked])) < 30


def test_a_rate_that_would_take_for_ever_meets_the_limit_of_the_run() -> None:
    """A record in thirty years: the wait for the second one is no way around Timeouts.run."""
    world = World(
        {"a": made_up_records(3)},
        source={"page_records": 1},
        throttle=RateLimit(records_per_second=1e-9),
        timeouts=Timeouts(run=timedelta(seconds=1)),
    )
    with pytest.raises(RunTimeoutError, match=r"Timeouts\.run"):
        world.run(max_wait_in_slot=1e12)
