"""The Airflow thread makes whole calls or none, whatever happens to the thread that waits."""

from __future__ import annotations

import contextvars
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.engine.exceptions import TransientError
from airflow_batchkit.hooks.airflow_thread import AirflowThread

if TYPE_CHECKING:
    from collections.abc import Iterator


class TaskTimeout(BaseException):
    """Stands for AirflowTaskTimeout."""


@pytest.fixture
def airflow() -> Iterator[AirflowThread]:
    """Give a thread that waits five seconds for an answer."""
    with AirflowThread(call_seconds=5) as thread:
        yield thread


def test_call_returns_what_the_function_returns(airflow: AirflowThread) -> None:
    """A call runs in a daemon thread that is not the caller's, and its result comes back."""
    threads = []

    def divide(dividend: int, *, by: int) -> float:
        threads.append(threading.current_thread())
        return dividend / by

    assert airflow.call("division", divide, 6, by=3) == 2
    assert threads[0] is not threading.current_thread()
    assert threads[0].daemon


def test_errors_come_back_as_they_are(airflow: AirflowThread) -> None:
    """What the function raises is raised where it was asked for."""
    with pytest.raises(ZeroDivisionError):
        airflow.call("division", lambda: 1 / 0)


def test_calls_of_a_call_run_at_once(airflow: AirflowThread) -> None:
    """A function that makes a call itself, from within the thread, does not wait for itself."""
    assert airflow.call("outer", lambda: airflow.call("inner", lambda: 7)) == 7


def test_context_variables_are_those_of_the_caller() -> None:
    """Airflow's current task, kept in context variables, is known in the thread too."""
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")
    with AirflowThread() as airflow:
        assert airflow.call("look", variable.get) == "set"


def test_late_answer_is_a_transient_error() -> None:
    """No call waits for ever, and one that nobody waits for any more is not made."""
    calls: list[str] = []
    release = threading.Event()
    with AirflowThread(call_seconds=0.05) as airflow:
        with pytest.raises(TransientError, match=r"save: Airflow did not answer within 0 s"):
            airflow.call("save", release.wait, 10)
        with pytest.raises(TransientError):
            airflow.call("later save", calls.append, "made")
        release.set()
    assert calls == []


def test_signal_cuts_the_waiting_but_not_the_call(airflow: AirflowThread) -> None:
    """A handler that raises in the main thread leaves the call under way to its end, and none follows it."""
    started, release, finished = threading.Event(), threading.Event(), threading.Event()

    def slow_call() -> None:
        started.set()
        release.wait(5)
        finished.set()

    def raise_timeout(*_: object) -> None:
        raise TaskTimeout

    def interrupt_when_started() -> None:
        started.wait(5)
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, raise_timeout)
    interrupter = threading.Thread(target=interrupt_when_started)
    try:
        interrupter.start()
        with pytest.raises(TaskTimeout):
            airflow.call("save", slow_call)
    finally:
        interrupter.join(5)
        signal.signal(signal.SIGUSR1, before)
    airflow.abandon()
    release.set()
    assert finished.wait(5)
    with pytest.raises(TransientError, match="interrupted"):
        airflow.call("another save", lambda: None)


def test_interruption_abandons_the_thread() -> None:
    """Leaving the block with a BaseException makes no further call, not even one that was asked for."""
    calls: list[str] = []
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        release.wait(5)

    def leave_with_two_calls_asked_for() -> None:
        with AirflowThread() as airflow:
            airflow.post("first", hold)
            held.wait(5)
            airflow._posted = None
            airflow.post("second", calls.append, "made")
            raise TaskTimeout

    with pytest.raises(TaskTimeout):
        leave_with_two_calls_asked_for()
    release.set()
    assert calls == []


def test_posts_do_not_pile_up(airflow: AirflowThread) -> None:
    """While one posted call is under way, another is refused rather than queued."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        release.wait(5)

    assert airflow.post("first", hold)
    held.wait(5)
    assert not airflow.post("second", lambda: None)
    release.set()
    airflow.call("wait for the first", lambda: None)
    assert airflow.post("third", lambda: None)


def test_failed_posts_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A posted call that fails disturbs nobody, but is told."""
    with AirflowThread() as airflow:
        airflow.post("mirror", lambda: 1 / 0)
        assert airflow.call("next", lambda: "works") == "works"
    assert "division by zero" in caplog.text


def test_leaving_waits_for_what_was_posted() -> None:
    """The last progress reaches Airflow before the operator returns."""
    calls: list[str] = []
    with AirflowThread() as airflow:
        airflow.post("mirror", calls.append, "made")
    assert calls == ["made"]


def test_hanging_call_does_not_hold_the_process() -> None:
    """The interpreter exits although Airflow never answers."""
    code = (
        "import threading\n"
        "from airflow_batchkit.hooks.airflow_thread import AirflowThread\n"
        "airflow = AirflowThread(call_seconds=0.1)\n"
        "airflow.__enter__()\n"
        "try:\n"
        "    airflow.call('save', threading.Event().wait)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.strip() == "TransientError"
