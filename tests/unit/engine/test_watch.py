"""The watch over a run: a limit on standing still, and one on the whole run."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from datetime import timedelta

import pytest

from airflow_batchkit.engine.exceptions import NoProgressError, RunTimeoutError, StoppedError
from airflow_batchkit.engine.policies import BatchRetry, Timeouts
from airflow_batchkit.engine.watch import LoopHangsError, Watch
from airflow_batchkit.testing.doubles import FakeClock
from tests.support.legs import HurryingClock, World

LIMITS = Timeouts(no_progress=timedelta(seconds=60), run=timedelta(seconds=1000))


def watch(clock: FakeClock, *, active_before: float = 0.0) -> Watch:
    """Begin to watch."""
    return Watch(LIMITS, clock, active_before=active_before, log=logging.getLogger("tests.watch"))


def test_standing_still_is_noticed() -> None:
    """Not at the limit, but beyond it; every move begins the time anew."""
    clock = FakeClock()
    watching = watch(clock)
    for _ in range(3):
        clock.advance(60)
        watching.check()
        watching.moved()
    clock.advance(60.1)
    with pytest.raises(NoProgressError, match="no cursor moved for 60 s"):
        watching.check()


def test_waiting_on_purpose_does_not_count() -> None:
    """A throttle may hold a run for longer than it may stand still."""
    clock = FakeClock()
    watching = watch(clock)
    clock.advance(300)
    watching.waited(300)
    watching.check()
    clock.advance(61)
    with pytest.raises(NoProgressError):
        watching.check()


def test_the_run_has_a_limit_over_all_its_legs() -> None:
    """What earlier legs worked counts; moving does not help."""
    clock = FakeClock()
    watching = watch(clock, active_before=950.0)
    clock.advance(50)
    watching.moved()
    watching.check()
    clock.advance(1)
    watching.moved()
    with pytest.raises(RunTimeoutError, match="worked for 1,001 s, at most 1,000 s"):
        watching.check()


def test_a_loop_that_hangs_is_woken(caplog: pytest.LogCaptureFixture) -> None:
    """A transform that never comes back is ended where it stands, and the log shows where that is."""
    limits = Timeouts(no_progress=timedelta(seconds=0.3))
    watching = Watch(limits, FakeClock(), active_before=0.0, log=logging.getLogger("tests.watch"))

    def never_comes_back() -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            time.sleep(0.01)

    with pytest.raises(NoProgressError, match=r"hung for longer than Timeouts\.no_progress"), watching:
        never_comes_back()
    assert "never_comes_back" in caplog.text
    assert "the loop hangs" in caplog.text


def test_a_loop_that_comes_by_is_left_alone() -> None:
    """However long it takes altogether, and nothing is watched any more once the loop is left."""
    limits = Timeouts(no_progress=timedelta(seconds=1))
    watching = Watch(limits, FakeClock(), active_before=0.0, log=logging.getLogger("tests.watch"))
    others = set(threading.enumerate())
    with watching:
        (watcher,) = [each for each in {*threading.enumerate()} - others if each.name == "batchkit-watch"]
        for _ in range(6):
            time.sleep(0.25)
            watching.seen()
    watcher.join(5)
    assert not watcher.is_alive()


def test_an_error_of_the_watch_survives_pickling() -> None:
    """It is made by Python itself, without a message, and sent between processes like any other."""
    found = pickle.loads(pickle.dumps(LoopHangsError()))  # noqa: S301  # our own bytes
    assert (type(found), str(found)) == (LoopHangsError, str(LoopHangsError()))


@pytest.mark.fault("clock", at="engine")
@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_jump_of_the_wall_clock_is_no_time(jump: float) -> None:
    """An hour forward is no lack of progress and no hour of work; an hour back gives none."""
    clock = FakeClock()
    watching = watch(clock, active_before=990.0)
    clock.jump(jump)
    watching.check()
    clock.advance(11)
    with pytest.raises(RunTimeoutError):
        watching.check()
    still = watch(clock)
    clock.jump(-jump)
    still.check()
    clock.advance(61)
    with pytest.raises(NoProgressError):
        still.check()


def test_the_message_names_who_is_at_work() -> None:
    """Readers and writers that wait for the loop are left out; the others are named with their last line."""
    world = World(
        timeouts=Timeouts(no_progress=timedelta(seconds=20)),
        clock=HurryingClock(step=0.5),
        batch_retry=BatchRetry(max_tries=1),
    )
    block = world.target.script.block("write")
    with pytest.raises(StoppedError, match=r"progress\): batchkit-write-[12] in script.py:\d+; the log"):
        world.run()
    block.release()
