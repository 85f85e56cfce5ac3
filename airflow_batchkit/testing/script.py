"""What a double does instead of working, told beforehand by the test."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from airflow_batchkit.engine.exceptions import TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

When: TypeAlias = Literal["before", "after"]

LONGEST_BLOCK = 60.0


class Block:
    """A call that hangs until the test lets it go on."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._released = threading.Event()

    def wait_until_reached(self, seconds: float = 10.0) -> bool:
        """Wait until the call hangs.

        :param seconds: wait no longer than this.
        :returns: False when the call did not come in time.
        """
        return self._reached.wait(seconds)

    def release(self) -> None:
        """Let the call go on."""
        self._released.set()

    def hold(self, closed: threading.Event) -> None:
        """Hang until released.

        :param closed: set when the double is closed, which ends the hanging too, as a closed socket does.
        :raises TransientError: the double was closed, or nobody released the call within 60 s.
        """
        self._reached.set()
        until = time.monotonic() + LONGEST_BLOCK
        while not self._released.wait(0.01):
            if closed.is_set():
                message = "the connection was closed while a call was under way"
                raise TransientError(message)
            if time.monotonic() > until:
                message = f"a blocked call was not released within {LONGEST_BLOCK:.0f} s"
                raise TransientError(message)


@dataclass(frozen=True, slots=True)
class _Fault:
    call: str
    first: int
    last: int
    does: BaseException | Block
    when: When

    def hits(self, call: str, number: int, when: When) -> bool:
        return self.call == call and self.first <= number <= self.last and self.when == when


class Script:
    """Failures and hanging calls of one double, counted over all the legs that share the script.

    Calls are named by the double that makes them (``"write"``, ``"page:orders-0"``). Safe to use from several
    threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._faults: list[_Fault] = []

    def calls(self, call: str) -> int:
        """Return how often a call was made so far, failed ones included."""
        with self._lock:
            return self._calls[call]

    def fail(
        self, call: str, error: BaseException, *, at: int = 1, times: int = 1, when: When = "before"
    ) -> None:
        """Make calls fail.

        :param call: name of the call.
        :param error: what it raises.
        :param at: the first call that fails, from 1, counted from the script's beginning.
        :param times: how many calls in a row fail.
        :param when: ``"after"`` does the work first and then raises: the answer got lost.
        """
        self._faults.append(_Fault(call, at, at + times - 1, error, when))

    def block(self, call: str, *, at: int = 1, when: When = "before") -> Block:
        """Make one call hang until the returned block is released or the double is closed.

        :param call: name of the call.
        :param at: which call hangs, from 1.
        :param when: ``"after"`` does the work first.
        """
        block = Block()
        self._faults.append(_Fault(call, at, at, block, when))
        return block

    @contextmanager
    def playing(self, call: str, closed: threading.Event) -> Iterator[int]:
        """Count a call and do to it what the test told; yields the call's number."""
        with self._lock:
            self._calls[call] += 1
            number = self._calls[call]
        self._play(call, number, "before", closed)
        yield number
        self._play(call, number, "after", closed)

    def _play(self, call: str, number: int, when: When, closed: threading.Event) -> None:
        for fault in [fault for fault in self._faults if fault.hits(call, number, when)]:
            if isinstance(fault.does, Block):
                fault.does.hold(closed)
            else:
                raise fault.does
