"""Ctrl-C once: stop at the next boundary. Twice: end at once. SIGTERM is like Ctrl-C once."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from airflow_batchkit.cli.exits import STOPPED

if TYPE_CHECKING:
    from airflow_batchkit.engine.stop import Stop

_ONCE = "stopping at the next batch boundary; Ctrl-C again ends at once"
_TWICE = "ended at once"
_GOES_ON = "the same command goes on from the last checkpoint"
_SHOW_CURSOR = "\x1b[?25h"


class Interrupts:
    """Turns signals into a stop request for the time of a ``with`` block.

    :param stop: where the request goes.
    :param afterwards: what the same command does when it is run again.
    """

    def __init__(self, stop: Stop, *, afterwards: str = _GOES_ON) -> None:
        self._stop = stop
        self._afterwards = afterwards
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def __enter__(self) -> None:
        for number in self._before:
            signal.signal(number, self._handle)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._stop.asked:
            self._end_now()
        reason = "stopped by Ctrl-C" if number == signal.SIGINT else "stopped by SIGTERM"
        if not self._stop.asked:
            self._stop.ask(reason)
            _say(_ONCE if number == signal.SIGINT else "SIGTERM: stopping at the next batch boundary")

    def _end_now(self) -> None:
        # No exception, no finally: a writer that hangs must not hold the process. What counts is on disk.
        _say(f"{_TWICE}; {self._afterwards}" + (_SHOW_CURSOR if sys.stderr.isatty() else ""))
        os._exit(STOPPED)


def _say(text: str) -> None:
    # Straight to the descriptor: a handler may run inside a buffered write of the same stream.
    erase_line = "\r\x1b[2K" if sys.stderr.isatty() else ""
    os.write(2, f"{erase_line}{text}\n".encode())
