"""A request to stop: a reason, asked for at batch boundaries, never an exception from nowhere."""

from __future__ import annotations

import time

from airflow_batchkit.engine.exceptions import StoppedError

_SLICE = 0.1


class Stop:
    """Carries a stop request from a signal handler, or another thread, to the loop.

    It takes no lock: a handler runs *inside* the main thread, between any two of its steps, and would wait
    for ever for a lock that this same thread holds.
    """

    def __init__(self) -> None:
        self._request: tuple[str, float | None] | None = None

    def ask(self, reason: str, resume_after: float | None = None) -> None:
        """Ask the run to stop; the first request stands.

        :param reason: why, for people.
        :param resume_after: seconds to wait before the next leg; None when a person decides.
        """
        if self._request is None:
            self._request = (reason, resume_after)

    @property
    def asked(self) -> str | None:
        """The reason when someone asked, else None."""
        return None if self._request is None else self._request[0]

    def raise_if_asked(self) -> None:
        """End the leg here when someone asked.

        :raises StoppedError: with the reason.
        """
        if self._request is not None:
            raise StoppedError(*self._request)

    def wait(self, seconds: float) -> bool:
        """Sleep, at most until a stop is asked.

        :returns: whether a stop was asked.
        """
        deadline = time.monotonic() + seconds
        while self._request is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(_SLICE, left))
        return True
