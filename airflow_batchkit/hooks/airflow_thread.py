"""One thread makes all Airflow calls of a running job, so that no signal can cut a call in half.

A signal handler that raises inside a call (``execution_timeout`` does) leaves the answer unread on the way
to Airflow's supervisor: every later answer then belongs to the question before. Signals reach only the main
thread.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from airflow_batchkit.engine.exceptions import TransientError
from airflow_batchkit.hooks.api_errors import translate

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

P = ParamSpec("P")
T = TypeVar("T")

CALL_SECONDS = 60.0
_CLOSE_SECONDS = 5.0

log = logging.getLogger(__name__)


class _Request:
    """One call. A bare lock says "answered": an Event has steps between which a signal could cut."""

    __slots__ = ("answered", "error", "function", "result", "what", "withdrawn")

    def __init__(self, what: str, function: Callable[[], Any]) -> None:
        self.what = what
        self.function = function
        self.result: Any = None
        self.error: BaseException | None = None
        self.withdrawn = False
        self.answered = threading.Lock()
        self.answered.acquire()

    def run(self) -> None:
        """Make the call and keep what came of it."""
        try:
            self.result = self.function()
        except BaseException as error:  # noqa: BLE001  # handed to the waiting thread, which raises it
            self.error = translate(error, what=self.what)
        finally:
            self.answered.release()


class AirflowThread:
    """Makes calls to Airflow one after the other, in a daemon thread; use it as a context manager.

    :param call_seconds: how long the caller waits for one answer, in seconds. Default 60.
    """

    def __init__(self, *, call_seconds: float = CALL_SECONDS) -> None:
        self._call_seconds = call_seconds
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._posted: _Request | None = None
        self._abandoned = False
        # Airflow keeps the current task in context variables, which a new thread does not inherit.
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._work,), name="batchkit-airflow", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            self.abandon()
        self.close()

    def call(
        self,
        what: str,
        function: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Make a call and wait for its answer.

        :param what: what the call is for, as a message can name it (``save of the checkpoint``).
        :param function: called in the Airflow thread with the remaining arguments.
        :raises TransientError: no answer in time, an error of Airflow's API, or :meth:`abandon` was called.
        :raises SupersededError: Airflow does not know this task instance any more.
        """
        request = _Request(what, functools.partial(function, *args, **kwargs))
        if threading.current_thread() is self._thread:
            request.run()
        else:
            self._wait_for(request)
        if request.error is not None:
            raise request.error
        result: T = request.result
        return result

    def post(self, what: str, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> bool:
        """Make a call without waiting for it; its failure is logged.

        :returns: False where an earlier one is still under way: nothing piles up behind a slow API server.
        """
        if self._abandoned or (self._posted is not None and self._posted.answered.locked()):
            return False
        self._posted = _Request(what, functools.partial(function, *args, **kwargs))
        self._requests.put(self._posted)
        return True

    def post_last(self, what: str, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Make one more call without waiting for it, behind what is under way; ``close`` gives it time."""
        if not self._abandoned:
            self._posted = _Request(what, functools.partial(function, *args, **kwargs))
            self._requests.put(self._posted)

    def abandon(self) -> None:
        """Begin no further call; one that is under way comes to its end."""
        self._abandoned = True

    def close(self) -> None:
        """Let what is under way come to its end, a few seconds at most, and end the thread."""
        self._requests.put(None)
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)

    def _wait_for(self, request: _Request) -> None:
        if self._abandoned:
            raise TransientError(f"{request.what}: the task was interrupted, Airflow is not asked any more")
        self._requests.put(request)
        try:
            answered = request.answered.acquire(timeout=self._call_seconds)
        except BaseException:
            self.abandon()
            raise
        if not answered:
            request.withdrawn = True
            raise TransientError(
                f"{request.what}: Airflow did not answer within {self._call_seconds:,.0f} s; "
                "is its API server up, and not overloaded?"
            )

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            if self._abandoned or request.withdrawn:
                request.answered.release()
                continue
            request.run()
            if request is self._posted and request.error is not None:
                log.warning("%s; the run goes on without it", request.error)
