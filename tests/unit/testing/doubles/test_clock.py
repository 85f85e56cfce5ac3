"""The fake clock moves only when it is told to."""

from __future__ import annotations

from airflow_batchkit.testing.doubles import FakeClock


def test_waiting_moves_both_times_at_once() -> None:
    """Nobody sleeps: a wait is over at once, noted, and seen on both clocks."""
    clock = FakeClock(start=1000.0)
    assert (clock.time(), clock.monotonic()) == (1000.0, 0.0)
    assert clock.wait(5.5) is False
    clock.sleep(0.5)
    clock.advance(4)
    assert (clock.time(), clock.monotonic()) == (1010.0, 10.0)
    assert clock.waits == [5.5, 0.5]


def test_monotonic_never_goes_back() -> None:
    """A negative step is none."""
    clock = FakeClock()
    clock.advance(-3)
    assert clock.monotonic() == 0.0
