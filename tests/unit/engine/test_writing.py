"""Retries: patient with what may pass, and never longer than stop, slot and limits allow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from typing_extensions import override

from airflow_batchkit.engine.exceptions import PermanentError, PushbackError, StoppedError, TransientError
from airflow_batchkit.engine.policies import BatchRetry
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.engine.writing import Notice, Retrying

MILLISECOND = timedelta(milliseconds=1)


class Waits(Stop):
    """Notes how long it was asked to wait, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    @override
    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        return super().wait(0)


def failing(times: int, error: BaseException) -> Callable[[], str]:
    """Make a function that fails so many times, each time with its own message, and then answers."""
    calls = [0]

    def function() -> str:
        calls[0] += 1
        if calls[0] <= times:
            raise type(error)(f"{error} #{calls[0]}", *error.args[1:])
        return f"answer {calls[0]}"

    return function


def retrying(policy: BatchRetry, stop: Stop, **changes: Any) -> tuple[Retrying, list[Notice]]:
    """Make a Retrying and the list that its notices go to."""
    notices: list[Notice] = []
    settings: dict[str, Any] = {"total_seconds": 600.0, "max_wait_in_slot": 60.0, **changes}
    return Retrying(policy, stop=stop, notify=notices.append, **settings), notices


def test_waits_double_with_equal_jitter_up_to_the_longest() -> None:
    """Each between half of and the whole of its step."""
    waits = Waits()
    policy = BatchRetry(max_tries=8, first_wait=timedelta(seconds=1), max_wait=timedelta(seconds=10))
    call, notices = retrying(policy, waits)

    assert call("write", failing(7, TransientError("503"))) == "answer 8"
    for waited, step in zip(waits.waited, [1, 2, 4, 8, 10, 10, 10], strict=True):
        assert step / 2 <= waited <= step
    assert [notice.tries for notice in notices] == [1, 2, 3, 4, 5, 6, 7]
    assert [notice.wait for notice in notices] == waits.waited
    assert (notices[0].what, str(notices[0].error)) == ("write", "503 #1")


@pytest.mark.fault("server-error", at="engine")
def test_the_last_error_comes_through() -> None:
    """Not a wrapper of the library: what happened, the last time."""
    call, notices = retrying(BatchRetry(max_tries=3), Waits())

    with pytest.raises(TransientError, match=r"^503 #3$"):
        call("write", failing(99, TransientError("503")))
    assert len(notices) == 2


@pytest.mark.parametrize("error", [PermanentError("403"), ValueError("bug"), KeyboardInterrupt()])
def test_what_will_not_pass_is_not_tried_again(error: BaseException) -> None:
    """Permanent errors, bugs, and what is no Exception at all."""
    call, notices = retrying(BatchRetry(), Waits())

    with pytest.raises(type(error)):
        call("write", failing(1, error))
    assert notices == []


@pytest.mark.fault("pushback", at="engine")
def test_retry_after_is_a_lower_bound() -> None:
    """Longer than our own wait it is kept to; shorter, ours stands."""
    waits = Waits()
    call, _ = retrying(BatchRetry(max_tries=2, first_wait=MILLISECOND, max_wait=MILLISECOND), waits)
    call("write", failing(1, PushbackError("429", 42.0)))
    call("write", failing(1, PushbackError("429")))

    assert waits.waited[0] == 42.0
    assert waits.waited[1] <= 0.001


def test_a_pushback_that_does_not_fit_the_slot_is_raised_at_once() -> None:
    """The leg ends and comes back; nobody sleeps in a worker slot for ten minutes."""
    waits = Waits()
    call, _ = retrying(BatchRetry(), waits)

    with pytest.raises(PushbackError) as caught:
        call("write", failing(1, PushbackError("429", 61.0)))
    assert caught.value.retry_after == 61.0
    assert waits.waited == []


def test_a_stop_ends_the_waiting() -> None:
    """With its reason and its time to come back; the call is not made again."""
    stop = Stop()
    call, _ = retrying(BatchRetry(first_wait=timedelta(seconds=30)), stop)
    function = failing(99, TransientError("503"))
    threading.Timer(0.1, stop.ask, args=("deploy", 30.0)).start()
    began = time.monotonic()

    with pytest.raises(StoppedError) as caught:
        call("write", function)
    assert caught.value.args == ("deploy", 30.0)
    assert time.monotonic() - began < 2


def test_all_tries_together_have_a_limit() -> None:
    """Timeouts.batch ends the tries, whatever their number."""
    call, notices = retrying(
        BatchRetry(max_tries=10_000, first_wait=MILLISECOND, max_wait=MILLISECOND), Stop(), total_seconds=0.05
    )
    began = time.monotonic()

    with pytest.raises(TransientError):
        call("write", failing(10**9, TransientError("503")))
    assert time.monotonic() - began < 2
    assert notices


def test_a_wait_never_overflows() -> None:
    """After a thousand tries the step is still a number."""
    waits = Waits()
    call, _ = retrying(BatchRetry(max_tries=1100, first_wait=MILLISECOND, max_wait=MILLISECOND), waits)

    assert call("write", failing(1099, TransientError("503"))) == "answer 1100"
    assert max(waits.waited) <= 0.001


def test_no_wait_is_begun_that_would_end_too_late() -> None:
    """What the other side asks for may not fit into Timeouts.batch: the error comes at once, not after it."""
    waits = Waits()
    call, _ = retrying(BatchRetry(), waits, total_seconds=10.0)

    with pytest.raises(PushbackError):
        call("write", failing(1, PushbackError("429", 10.0)))
    assert waits.waited == []


def test_tries_begin_anew_when_a_part_is_done() -> None:
    """Ten refusals with work done between them are no failure; the third in vain is."""
    waits = Waits()
    policy = BatchRetry(max_tries=3, first_wait=timedelta(seconds=1), max_wait=timedelta(seconds=64))
    call, notices = retrying(policy, waits)
    done = [0]

    def bites() -> str:
        if done[0] < 10:
            done[0] += 1
            raise PushbackError("429")
        return "whole"

    assert call("write", bites, done=lambda: done[0]) == "whole"
    assert {notice.tries for notice in notices} == {1}
    assert max(waits.waited) <= 1.0, "the waits begin anew too"
    with pytest.raises(PushbackError, match="#3"):
        call("write", failing(99, PushbackError("429")), done=lambda: done[0])
