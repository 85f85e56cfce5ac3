"""Stopwatches around functions: CPU and wall time per stage, over all threads."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Spent:
    """What a stage took, without the stages inside it.

    :param cpu: seconds of CPU.
    :param wall: seconds from its begin to its end, added up over the threads.
    :param calls: how often.
    """

    cpu: float = 0.0
    wall: float = 0.0
    calls: int = 0


class Stopwatches:
    """Measures stages; a stage that runs inside another is taken off the outer one."""

    def __init__(self) -> None:
        self.spent: dict[str, Spent] = {}
        self._lock = threading.Lock()
        self._thread = threading.local()

    def around(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with a stopwatch around it."""
        spent = self.spent.setdefault(stage, Spent())

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            outer: Spent | None = getattr(self._thread, "inside", None)
            self._thread.inside = inside = Spent()
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
                self._thread.inside = outer
                if outer is not None:
                    outer.cpu += cpu
                    outer.wall += wall
                with self._lock:
                    spent.cpu += cpu - inside.cpu
                    spent.wall += wall - inside.wall
                    spent.calls += 1

        return timed

    def put(self, stage: str, owner: Any, name: str) -> None:
        """Put a stopwatch around a function of a module, or a method of a class."""
        setattr(owner, name, self.around(stage, getattr(owner, name)))
