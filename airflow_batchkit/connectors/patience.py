"""Calling a store with patience, one call after another or a few at a time."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import TypeAlias, TypeVar

from airflow_batchkit.engine.exceptions import PushbackError, TransientError

S = TypeVar("S")
T = TypeVar("T")
_Task: TypeAlias = tuple[Callable[[], T], "Future[T]"]

_TRIES = 4
_FIRST_WAIT = 0.2
_LONGEST_WAIT = 5.0


def patiently(call: Callable[[], T]) -> T:
    """Call up to four times while it fails in a way that may pass, in about two seconds.

    A publication of thousands of copies would else fail as a whole for one of them. What lasts longer, or
    asks for a longer wait, is left to the engine, which repeats the whole publication.

    :raises TransientError: the last failure.
    """
    for number in range(_TRIES):
        try:
            return call()
        except TransientError as error:
            asked = (error.retry_after or 0.0) if isinstance(error, PushbackError) else 0.0
            if number == _TRIES - 1 or asked > _LONGEST_WAIT:
                raise
            step = _FIRST_WAIT * 2.0**number
            time.sleep(max(random.uniform(step / 2, step), asked))
    raise AssertionError  # the loop returns or raises


def some_at_once(items: Iterable[T], count: int = 1_000) -> Iterator[list[T]]:
    """Give the items in lists of at most ``count``."""
    rest = iter(items)
    while some := list(islice(rest, count)):
        yield some


def in_order(function: Callable[[S], T], items: Iterable[S], *, threads: int, seconds: float) -> Iterator[T]:
    """Call a function for each item, a few at a time, and give the results in the items' order.

    The threads are daemons: a call that hangs cannot hold the process. At most four items per thread are
    taken ahead of the result that is given, so memory does not grow with their number.

    :param function: called in a thread of its own; what it raises is raised here.
    :param threads: calls at a time.
    :param seconds: the longest wait for one result.
    :raises TransientError: a call took longer.
    """
    tasks: queue.SimpleQueue[_Task[T] | None] = queue.SimpleQueue()
    waiting: deque[Future[T]] = deque()
    for number in range(threads):
        threading.Thread(target=_work, args=(tasks,), name=f"batchkit-publish-{number}", daemon=True).start()
    try:
        for item in items:
            waiting.append(_submit(tasks, function, item))
            if len(waiting) >= 4 * threads:
                yield _result(waiting.popleft(), seconds)
        while waiting:
            yield _result(waiting.popleft(), seconds)
    finally:
        for future in waiting:
            future.cancel()
        for _ in range(threads):
            tasks.put(None)


def _submit(tasks: queue.SimpleQueue[_Task[T] | None], function: Callable[[S], T], item: S) -> Future[T]:
    future: Future[T] = Future()
    tasks.put((lambda: function(item), future))
    return future


def _result(future: Future[T], seconds: float) -> T:
    try:
        return future.result(timeout=seconds)
    except TimeoutError as error:
        raise TransientError(f"a call to the store gave no result in {seconds:.0f} s") from error


def _work(tasks: queue.SimpleQueue[_Task[T] | None]) -> None:
    # Without a timeout on purpose: the thread is a daemon, and whoever started it sends it home.
    while (task := tasks.get()) is not None:
        call, future = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  # handed to the thread that waits for the result
            future.set_exception(error)
