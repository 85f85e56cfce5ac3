"""Notices that nothing moves any more: a hung socket under a live heartbeat looks healthy to all others."""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from airflow_batchkit.engine.exceptions import NoProgressError, RunTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_batchkit.engine.clock import Clock
    from airflow_batchkit.engine.policies import Timeouts

_FRAMES = 6
_MOST_PLACES = 3
_LOOKS = 20
_LONGEST_LOOK = 5.0
_OURS = str(Path(__file__).parents[1])


class Watch:
    """Measures the time since something last moved, and the time of the whole run.

    The loop asks it (:meth:`check`). While it is entered, a daemon thread looks after the loop itself, which
    may hang too: in a transform, mostly.

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
        self._watched = threading.get_ident()
        self._seen_at = time.monotonic()
        self._left = threading.Event()

    def __enter__(self) -> Self:
        self._watched = threading.get_ident()
        self.seen()
        threading.Thread(target=self._look_after, name="batchkit-watch", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()

    def seen(self) -> None:
        """Note that the loop came by."""
        self._seen_at = time.monotonic()

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
        self.seen()
        self.check_run()
        now = self._clock.monotonic()
        if now - self._moved_at > self._no_progress:
            self._log.error("nothing moves; this is where the threads stand:\n%s", _stacks(self._watched))
            raise NoProgressError(
                f"no cursor moved for {self._no_progress:,g} s (Timeouts.no_progress): "
                f"{_places(self._watched)}; the log shows where each thread stands"
            )

    def check_run(self) -> None:
        """Raise when the run as a whole took too long, also while it waits on purpose.

        :raises RunTimeoutError: it did.
        """
        active = self._active_before + self._clock.monotonic() - self._began
        if active > self._run:
            raise RunTimeoutError(
                f"the run worked for {active:,.0f} s, at most {self._run:,.0f} s are allowed (Timeouts.run); "
                "clear the task to go on after raising the limit"
            )

    def _look_after(self) -> None:
        # By the machine's clock, whatever the run's says: the loop's own hanging takes real time.
        while not self._left.wait(min(self._no_progress / _LOOKS, _LONGEST_LOOK)):
            if time.monotonic() - self._seen_at > self._no_progress:
                self._log.error(
                    "the loop hangs; this is where the threads stand:\n%s", _stacks(self._watched)
                )
                self.seen()
                # It comes out where the thread next runs Python; a call into C that waits is not woken.
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._watched), ctypes.py_object(LoopHangsError)
                )


class LoopHangsError(NoProgressError):
    """The loop's own thread hung for longer than ``Timeouts.no_progress``.

    :param message: has a default, because Python makes the error by itself in the thread that hangs.
    """

    def __init__(
        self,
        message: str = "the loop hung for longer than Timeouts.no_progress, most likely in the transform; "
        "the log shows where",
    ) -> None:
        super().__init__(message)


def _threads(main: int) -> Iterator[tuple[str, traceback.StackSummary]]:
    frames = sys._current_frames()  # noqa: SLF001  # the documented way to look at other threads
    for thread in threading.enumerate():
        ours = thread.name.startswith("batchkit-") or thread.ident == main
        if ours and thread.ident in frames and thread is not threading.current_thread():
            yield thread.name, traceback.extract_stack(frames[thread.ident])


def _stacks(main: int) -> str:
    return "\n".join(
        f"-- {name}\n{''.join(stack.format()[-_FRAMES:]).rstrip()}" for name, stack in _threads(main)
    )


def _places(main: int) -> str:
    """Say in few words where the readers and writers stand: the last line of ours in each."""
    places = []
    for name, stack in _threads(main):
        ours = [frame for frame in stack if frame.filename.startswith(_OURS)]
        # Who waits for the loop has nothing to do with its standing still.
        if ours and Path(ours[-1].filename).name not in {"reading.py", "writing.py", "watch.py"}:
            places.append(f"{name} in {Path(ours[-1].filename).name}:{ours[-1].lineno}")
    return ", ".join(places[:_MOST_PLACES]) or "no reader or writer is at work"
