"""Notices that nothing moves any more: a hung socket under a live heartbeat looks healthy to all others."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from airflow_batchkit.engine.exceptions import NoProgressError, RunTimeoutError

if TYPE_CHECKING:
    from airflow_batchkit.engine.clock import Clock
    from airflow_batchkit.engine.policies import Timeouts


class Watch:
    """Measures the time since something last moved, and the time of the whole run.

    :param timeouts: the limits.
    :param clock: where the time comes from.
    :param active_before: seconds that earlier legs worked.
    :param log: where to say how each thread hangs.
    """

    def __init__(
        self, timeouts: Timeouts, clock: Clock, *, active_before: float, log: logging.Logger
    ) -> None:
        self._log = log
        self._no_progress = timeouts.no_progress.total_seconds()
        self._run = timeouts.run.total_seconds()
        self._clock = clock
        self._active_before = active_before
        self._began = clock.monotonic()
        self._moved_at = self._began

    def moved(self) -> None:
        """Note that a cursor moved."""
        self._moved_at = self._clock.monotonic()

    def waited(self, seconds: float) -> None:
        """Leave time that was spent waiting on purpose out of the account."""
        self._moved_at += seconds

    def check(self) -> None:
        """Raise when a limit is passed.

        :raises NoProgressError: no cursor moved for too long; the log says where each thread stands.
        :raises RunTimeoutError: the run as a whole took too long.
        """
        now = self._clock.monotonic()
        if now - self._moved_at > self._no_progress:
            self._log.error("nothing moves; this is where the threads stand:\n%s", _stacks())
            raise NoProgressError(
                f"no cursor moved for {self._no_progress:,.0f} s (Timeouts.no_progress); "
                "the log shows where each thread stands"
            )
        active = self._active_before + now - self._began
        if active > self._run:
            raise RunTimeoutError(
                f"the run worked for {active:,.0f} s, at most {self._run:,.0f} s are allowed (Timeouts.run); "
                "clear the task to go on after raising the limit"
            )


def _stacks() -> str:
    frames = sys._current_frames()  # noqa: SLF001  # the documented way to look at other threads
    lines: list[str] = []
    for thread in threading.enumerate():
        if thread.name.startswith("batchkit-") and thread.ident in frames:
            lines.append(f"-- {thread.name}")
            lines.extend(line.rstrip() for line in traceback.format_stack(frames[thread.ident])[-4:])
    return "\n".join(lines)
