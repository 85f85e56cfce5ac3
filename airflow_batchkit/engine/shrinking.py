"""How much is asked for, or sent, at once while the other side pushes back; arithmetic only."""

from __future__ import annotations

import threading

_STEP = 1 / 16
_LEAST = 2.0**-20


class Share:
    """A part of the usual size: halved by each pushback, grown back in small equal steps by what succeeds.

    So does TCP with its window (additive increase, multiplicative decrease): the size settles just below
    what the other side bears. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value = 1.0

    @property
    def value(self) -> float:
        """1.0 is the whole, until somebody pushes back."""
        return self._value

    def pushed_back(self, at: float) -> None:
        """Take in a pushback.

        :param at: the share that was refused. Two refusals at one share halve it once.
        """
        with self._lock:
            self._value = max(_LEAST, min(self._value, at / 2))

    def succeeded(self) -> None:
        """Take in a success."""
        if self._value < 1.0:
            with self._lock:
                self._value = min(1.0, self._value + _STEP)

    def of(self, whole: int, *, least: int = 1) -> int:
        """Return the share of a number.

        :param whole: the usual size.
        :param least: the result is never less, unless the whole is.
        """
        return min(whole, max(least, int(whole * self._value)))
