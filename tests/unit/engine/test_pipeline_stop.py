"""Rule 5: a stop is a reason, asked for at boundaries; nothing that hangs can hold the process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import PushbackError, StoppedError, TransientError
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, ErrorBudget, RateLimit, Timeouts
from airflow_batchkit.engine.stages import WRITES_IN_FLIGHT
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.testing.doubles import made_up_records
from airflow_batchkit.testing.script import Block
from tests.support.legs import HurryingClock, Recorder, World

LONG_WAITS = BatchRetry(max_tries=5, first_wait=timedelta(seconds=50), max_wait=timedelta(seconds=50))
LIMIT = 2.5


def stop_at(stop: Stop, moment: str, *, on: int = 1) -> Callable[[str, str], None]:
    """Make a probe that asks for a stop at an effect, as a signal would."""
    seen = [0]

    def probe(name: str, when: str) -> None:
        if f"{when} {name}" == moment:
            seen[0] += 1
            if seen[0] == on:
                stop.ask("deploy", 30.0)

    return probe


def stopped_while(world: World, block: Block, **settings: Any) -> tuple[StoppedError, float]:
    """Ask for a stop once a call hangs; return how the leg ended, and how long it took to."""
    stop = Stop()
    ended: list[BaseException] = []

    def leg() -> None:
        try:
            world.run(stop=stop, **settings)
        except StoppedError as error:
            ended.append(error)

    thread = threading.Thread(target=leg, daemon=True)
    thread.start()
    assert block.wait_until_reached()
    stop.ask("deploy", 30.0)
    asked_at = time.monotonic()
    thread.join(10)
    took = time.monotonic() - asked_at
    assert len(ended) == 1
    assert isinstance(ended[0], StoppedError)
    return ended[0], took


def stopping(block: Block, stop: Stop) -> threading.Thread:
    """Ask for a stop once a call hangs, and let it go on a little later."""

    def ask() -> None:
        block.wait_until_reached()
        stop.ask("deploy", 30.0)
        time.sleep(0.2)
        block.release()

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_rule_5_stop_while_a_read_hangs() -> None:
    """A source that does not answer cannot hold the leg; what was durable is saved."""
    world = World()
    error, took = stopped_while(world, world.log.script.block("page:a", at=3))

    assert (error.reason, error.resume_after) == ("deploy", 30.0)
    assert took < LIMIT
    assert world.stood.counts.read in {0, 10, 20}, "as far as the loop had come"
    world.run()
    assert len(world.ids) == 45


@pytest.mark.fault("sigterm", at="engine")
def test_rule_5_stop_while_a_write_hangs() -> None:
    """A sink that does not answer gets a moment, then the leg ends without that batch."""
    world = World()
    error, took = stopped_while(world, world.target.script.block("write", at=2))

    assert error.reason == "deploy"
    assert took < LIMIT
    assert world.stood.counts.read == 10
    world.run()
    assert world.ids == [record.id for record in made_up_records(45)]


def test_rule_5_stop_while_every_writer_hangs_and_the_loop_waits_for_room() -> None:
    """The loop asks also while it waits for a writer to become free."""
    world = World({"a": made_up_records(200)})
    blocks = [world.target.script.block("write", at=number) for number in range(1, WRITES_IN_FLIGHT + 1)]
    _, took = stopped_while(world, blocks[-1])

    assert took < LIMIT
    assert world.stood.counts.read == 0


def test_rule_5_stop_while_the_dead_letters_hang() -> None:
    """The same holds for the place of the dead letters."""
    world = World(error_budget=ErrorBudget(max_dead_letters=5))
    world.target.rejects = {"5"}
    block = world.box.script.block("put")
    _, took = stopped_while(world, block, job=world.job(dead_letters=world.letters))

    assert took < LIMIT
    assert world.stood.counts.read == 0


def test_rule_5_stop_during_the_rate_limit() -> None:
    """A wait for the rate limit ends with the stop."""
    world = World(throttle=RateLimit(records_per_second=0.1), source={"page_records": 1})
    stop = Stop()
    threading.Timer(0.3, stop.ask, args=("deploy",)).start()
    began = time.monotonic()

    with pytest.raises(StoppedError, match="deploy"):
        world.run(stop=stop)

    assert time.monotonic() - began < LIMIT


def test_rule_5_stop_during_a_wait_between_two_tries_keeps_its_resume_after() -> None:
    """A batch that waits for its next try does not wait on, and the leg comes back when the stop said."""
    world = World(batch_retry=LONG_WAITS)
    world.target.script.fail("write", TransientError("503"), times=10)
    stop = Stop()
    threading.Timer(0.3, stop.ask, args=("deploy", 30.0)).start()
    began = time.monotonic()

    with pytest.raises(StoppedError) as caught:
        world.run(stop=stop)

    assert time.monotonic() - began < LIMIT
    assert caught.value.args == ("deploy", 30.0)


def test_rule_5_what_is_in_flight_may_end_in_the_grace_time() -> None:
    """A write that ends soon after the stop still counts."""
    world = World({"a": made_up_records(10)})
    block = world.target.script.block("write")
    stop = Stop()
    thread = stopping(block, stop)

    with pytest.raises(StoppedError, match="deploy"):
        world.run(stop=stop)

    thread.join()
    assert world.stood.counts.read == 10


def test_rule_5_a_write_that_fails_after_the_stop_does_not_replace_the_reason() -> None:
    """The leg ends as stopped, not as failed: a deploy must not count as a failure at this cursor."""
    world = World({"a": made_up_records(20)}, batch_retry=BatchRetry(max_tries=1))
    block = world.target.script.block("write", at=1)
    world.target.script.fail("write", TransientError("reset"), at=1, when="after")
    stop = Stop()
    thread = stopping(block, stop)

    with pytest.raises(StoppedError, match=r"^deploy$"):
        world.run(stop=stop, max_stuck_legs=1)

    thread.join()
    assert world.stood.stuck_legs == 0


@pytest.mark.fault("sigterm", at="engine")
@pytest.mark.parametrize("moment", ["after sink.put", "after checkpoint.save", "after sink.start"])
def test_rule_5_stop_from_within_an_effect(moment: str) -> None:
    """Whenever the signal comes, the leg ends, and the next one finishes the run with nothing doubled."""
    world = World(clock=HurryingClock())
    stop = Stop()
    with probing(stop_at(stop, moment)), pytest.raises(StoppedError) as caught:
        world.run(stop=stop)

    assert caught.value.args == ("deploy", 30.0)
    world.run()
    assert world.ids == [record.id for record in made_up_records(45)]


def test_rule_5_stop_before_the_publication() -> None:
    """Everything is written, the stop comes with the last save: nothing is published by this leg."""
    world = World({"a": made_up_records(10)})
    stop = Stop()
    with probing(stop_at(stop, "after checkpoint.save", on=2)), pytest.raises(StoppedError):
        world.run(stop=stop)

    assert world.target.published is None
    assert world.run().legs == 2
    assert len(world.ids) == 10


@pytest.mark.fault("sigterm", at="engine")
def test_rule_5_stop_during_the_publication_lets_the_published_run_complete() -> None:
    """The output is visible already: the run completes rather than to be published once more."""
    world = World()
    stop = Stop()
    with probing(stop_at(stop, "after sink.publish")):
        report = world.run(stop=stop)

    assert report.status == "completed"


def test_rule_5_stop_while_the_publication_is_tried_again() -> None:
    """A publication that fails for a while does not hold a leg that shall stop."""
    world = World(batch_retry=LONG_WAITS)
    world.target.script.fail("publish", TransientError("503"), times=3)
    stop = Stop()
    threading.Timer(0.3, stop.ask, args=("deploy", 30.0)).start()
    began = time.monotonic()

    with pytest.raises(StoppedError) as caught:
        world.run(stop=stop)

    assert time.monotonic() - began < LIMIT
    assert caught.value.args == ("deploy", 30.0)
    assert world.stood.status == "running"


@pytest.mark.fault("sigterm", at="engine")
def test_rule_5_a_signal_handler_may_ask() -> None:
    """A handler runs inside the main thread: asking takes no lock that this thread may hold."""
    stop = Stop()
    before = signal.signal(signal.SIGUSR1, lambda *_: stop.ask("SIGUSR1"))
    try:
        world = World(throttle=RateLimit(records_per_second=10), source={"page_records": 5})
        threading.Timer(0.3, os.kill, args=(os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(StoppedError, match="SIGUSR1"):
            world.run(stop=stop)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_stop_asked_before_the_leg_begins_ends_it_before_any_record_is_written() -> None:
    """The stop is asked for before the first page is taken."""
    world = World()
    stop = Stop()
    stop.ask("too late")

    with pytest.raises(StoppedError, match="too late"):
        world.run(stop=stop)

    assert world.target.staged == {}


def test_a_pushback_longer_than_the_slot_ends_the_leg_for_that_long() -> None:
    """A server that asks for ten minutes gets them, without a worker slot and without a retry."""
    world = World()
    world.target.script.fail("write", PushbackError("429", 600.0), at=2)
    recorder = Recorder()

    with pytest.raises(StoppedError, match="PushbackError: 429") as caught:
        world.run(listeners=[recorder])

    assert caught.value.resume_after == 600.0
    assert recorder.named("retry") == []
    assert isinstance(recorder.named("failure")[0], StoppedError)
    world.run()
    assert len(world.ids) == 45


def test_a_rate_so_low_that_a_wait_does_not_fit_the_slot_gives_the_slot_back() -> None:
    """The leg ends with what it has, and says when to go on."""
    world = World(
        {"a": made_up_records(6)},
        throttle=RateLimit(records_per_second=0.01),
        batch=BatchPolicy(max_records=1),
        clock=HurryingClock(step=1.0),
        timeouts=Timeouts(no_progress=timedelta(days=1), run=timedelta(days=1)),
    )
    with pytest.raises(StoppedError, match=r"rate limit: .* s to wait") as caught:
        world.run()

    assert caught.value.resume_after is not None
    assert caught.value.resume_after > 60


def test_a_rate_so_low_that_a_wait_does_not_fit_the_slot_still_moves() -> None:
    """Each leg brings at least one window to its end: the run does not come back for ever at one place."""
    world = World(
        {"a": made_up_records(6)},
        throttle=RateLimit(records_per_second=0.01),
        clock=HurryingClock(step=1.0),
        timeouts=Timeouts(no_progress=timedelta(days=1), run=timedelta(days=1)),
    )
    report = world.run_to_end(world.job(batch=BatchPolicy(max_records=2)), legs=7)

    assert report.counts["read"] == 6
    assert report.legs > 1


def test_rule_5_stop_in_the_middle_of_a_page_that_is_transformed_slowly() -> None:
    """A transform that takes its time per record does not keep the leg from stopping for a whole page."""
    stop = Stop()
    calls = [0]

    def slow(document: dict[str, Any]) -> dict[str, Any]:
        calls[0] += 1
        if calls[0] == 1:
            stop.ask("deploy")
        time.sleep(0.01)
        return document

    records = made_up_records(1_000)
    world = World(
        {"a": records},
        source={"page_records": 1_000},
        transform=slow,
        batch=BatchPolicy(max_records=1_000),
    )

    with pytest.raises(StoppedError, match="deploy"):
        world.run(stop=stop)

    assert calls[0] < len(records) / 4
