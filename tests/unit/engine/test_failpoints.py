"""The seam at every side effect."""

from __future__ import annotations

import time

import pytest

from airflow_batchkit.engine.clock import SystemClock
from airflow_batchkit.engine.failpoints import effect, probing


def test_a_probe_is_asked_before_and_after() -> None:
    """By name, while it is installed; an effect that fails has no "after"."""
    seen: list[tuple[str, str]] = []
    with probing(lambda name, when: seen.append((name, when))):
        with effect("sink.put"):
            seen.append(("work", "done"))
        with pytest.raises(OSError, match="full"), effect("sink.put"):
            raise OSError("disk full")
    with effect("sink.put"):
        pass

    assert seen == [("sink.put", "before"), ("work", "done"), ("sink.put", "after"), ("sink.put", "before")]


def test_a_probe_is_removed_when_the_test_fails() -> None:
    """The next test is not probed."""
    seen: list[str] = []
    with pytest.raises(ValueError, match="test"), probing(lambda name, _: seen.append(name)):
        raise ValueError("the test failed")
    with effect("sink.put"):
        pass

    assert seen == []


def test_the_systems_clocks() -> None:
    """One to write down, one to measure with."""
    clock = SystemClock()

    assert abs(clock.time() - time.time()) < 1
    assert 0 <= clock.monotonic() - time.monotonic() + 1 <= 1
