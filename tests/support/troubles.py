"""More trouble for the legs of :mod:`tests.support.legs`: calls that fail, and a clock that jumps."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Literal

from typing_extensions import override

from tests.support.legs import HurryingClock

if TYPE_CHECKING:
    from airflow_batchkit.engine.exceptions import BatchkitError


class JumpingClock(HurryingClock):
    """Its wall clock jumps whenever it is looked at, and back at the next look.

    :param seconds: how far.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    @override
    def time(self) -> float:
        self.jump(self._seconds)
        self._seconds = -self._seconds
        return super().time()


class Failing:
    """A probe that fails one call: before its effect, or after it, so that only its answer is lost.

    :param at: at which moment, from 1.
    :param error: what the call raises.
    """

    def __init__(self, at: int, error: BatchkitError) -> None:
        self.moments: list[str] = []
        self._at = at
        self._error = error
        self._lock = threading.Lock()

    def __call__(self, name: str, when: Literal["before", "after"]) -> None:
        """Be a probe."""
        with self._lock:
            self.moments.append(f"{when} {name}")
            if len(self.moments) == self._at and name != "sink.release":  # which never raises
                raise self._error
