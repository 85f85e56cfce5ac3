"""A script makes calls of a double fail or hang, exactly where the test said."""

from __future__ import annotations

import threading

import pytest

from airflow_batchkit.engine.exceptions import TransientError
from airflow_batchkit.testing.script import Script


class Machine:
    """Something with one scripted call."""

    def __init__(self) -> None:
        self.script = Script()
        self.closed = threading.Event()
        self.done: list[int] = []

    def work(self) -> None:
        with self.script.playing("work", self.closed) as number:
            self.done.append(number)


def test_calls_fail_where_told() -> None:
    """The calls from the k-th on fail, as many as were told; the others work."""
    machine = Machine()
    machine.script.fail("work", TransientError("down"), at=2, times=2)
    machine.script.fail("rest", TransientError("another call"))
    machine.work()
    for _ in range(2):
        with pytest.raises(TransientError, match="down"):
            machine.work()
    machine.work()
    assert machine.done == [1, 4]
    assert (machine.script.calls("work"), machine.script.calls("rest")) == (4, 0)


def test_answer_can_get_lost() -> None:
    """With when="after" the work is done and then the call fails."""
    machine = Machine()
    machine.script.fail("work", TransientError("lost"), when="after")
    with pytest.raises(TransientError, match="lost"):
        machine.work()
    assert machine.done == [1]


def test_blocked_call_goes_on_when_released() -> None:
    """A call hangs until the test releases it, and then does its work."""
    machine = Machine()
    block = machine.script.block("work", at=1)
    thread = threading.Thread(target=machine.work, daemon=True)
    thread.start()
    assert block.wait_until_reached()
    assert machine.done == []
    block.release()
    thread.join(10)
    assert machine.done == [1]


def test_closing_ends_a_blocked_call() -> None:
    """A call that hangs fails when the double is closed, as one on a closed socket does."""
    machine = Machine()
    machine.script.block("work")
    machine.closed.set()
    with pytest.raises(TransientError, match="closed"):
        machine.work()
    assert machine.done == []


def test_block_that_is_never_reached_says_so() -> None:
    """A test that waits for a call that does not come gets an answer."""
    assert not Machine().script.block("work").wait_until_reached(0.01)
