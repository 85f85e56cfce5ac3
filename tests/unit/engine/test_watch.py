"""The watch over a run: a limit on standing still, and one on the whole run."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from airflow_batchkit.engine.exceptions import NoProgressError, RunTimeoutError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.watch import Watch
from airflow_batchkit.testing.doubles import FakeClock

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
