"""Calls are repeated with measure, and results come in order."""

from __future__ import annotations

import threading
import time

import pytest

from airflow_batchkit.connectors.patience import in_order, patiently, some_at_once
from airflow_batchkit.engine.exceptions import PermanentError, PushbackError, TransientError


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Do not wait; note how long it would have been."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


class Failing:
    """A call that fails as often as it is told."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_passing_trouble_is_sat_out(waits: list[float]) -> None:
    """Three failures that may pass are waited out, each a little longer."""
    call = Failing(TransientError("a"), TransientError("b"), PushbackError("c", 2.0))
    assert patiently(call) == "done"
    assert call.calls == 4
    assert len(waits) == 3
    assert waits[2] >= 2.0


def test_lasting_trouble_comes_through(waits: list[float]) -> None:
    """The last failure is raised, as it was; the engine decides what it means for the run."""
    with pytest.raises(TransientError, match="4"):
        patiently(Failing(*(TransientError(str(number)) for number in (1, 2, 3, 4, 5))))
    assert len(waits) == 3


@pytest.mark.parametrize("error", [PushbackError("later", 60.0), PermanentError("never"), OSError("odd")])
def test_what_waiting_does_not_mend_is_raised_at_once(error: Exception, waits: list[float]) -> None:
    """A permanent failure, or a wait that is too long for here, is not sat out."""
    call = Failing(error)
    with pytest.raises(type(error)):
        patiently(call)
    assert call.calls == 1
    assert not waits


def test_results_come_in_order_and_a_few_at_a_time() -> None:
    """However the calls overlap, results are in the items' order; items are taken as they are needed."""
    taken: list[int] = []

    def items() -> object:
        for number in range(100):
            taken.append(number)
            yield number

    def slow_first(number: int) -> int:
        if number % 7 == 0:
            time.sleep(0.002)
        return number * 2

    results = in_order(slow_first, items(), threads=3, seconds=10)  # type: ignore[arg-type]  # a generator
    assert next(results) == 0
    assert len(taken) <= 12
    assert [0, *results] == [number * 2 for number in range(100)]


def test_failure_of_one_call_is_raised_in_its_place() -> None:
    """Results before it are given; then the caller has the error itself."""

    def call(number: int) -> int:
        if number == 5:
            raise PermanentError("five")
        return number

    results = in_order(call, range(100), threads=2, seconds=10)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(PermanentError, match="five"):
        next(results)


def test_hanging_call_is_given_up() -> None:
    """A call without an answer ends the waiting, and its thread cannot hold the process."""
    hanging = threading.Event()
    with pytest.raises(TransientError, match="no result"):
        list(in_order(lambda _: hanging.wait(30), [1], threads=1, seconds=0.05))
    assert all(thread.daemon for thread in threading.enumerate() if "batchkit-publish" in thread.name)
    hanging.set()


def test_some_at_once() -> None:
    """Long listings are cut into lists."""
    assert list(some_at_once(range(5), 2)) == [[0, 1], [2, 3], [4]]
