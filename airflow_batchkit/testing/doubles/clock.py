"""A clock that only moves when it is told to."""

from __future__ import annotations

import threading


class FakeClock:
    """Stands in for the ``time`` module: waiting moves it forward at once, so that no test sleeps.

    :param start: seconds since the epoch at which it stands first. Default: 1 January 2026, 00:00 UTC.
    """

    def __init__(self, start: float = 1_767_225_600.0) -> None:
        self._lock = threading.Lock()
        self._start = start
        self._elapsed = 0.0
        self.waits: list[float] = []

    def time(self) -> float:
        """Return seconds since the epoch."""
        with self._lock:
            return self._start + self._elapsed

    def monotonic(self) -> float:
        """Return seconds since this clock was made."""
        with self._lock:
            return self._elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._elapsed += max(0.0, seconds)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back: no time passes."""
        with self._lock:
            self._start += seconds

    def wait(self, seconds: float) -> bool:
        """Let time pass and note it in ``waits``; returns False: nothing else happened."""
        with self._lock:
            self.waits.append(seconds)
        self.advance(seconds)
        return False

    def sleep(self, seconds: float) -> None:
        """Let time pass and note it in ``waits``."""
        self.wait(seconds)
