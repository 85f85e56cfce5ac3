"""Holds a run to its rate with absolute deadlines, so that the rate asked for is the rate that comes out.

``next = max(now, next) + n / rate``: what was late is not made up in a burst, and what the work itself
took is not waited for a second time (the flaw of `requests_per_second`, elastic/elasticsearch#67932).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_batchkit.engine.clock import Clock
    from airflow_batchkit.engine.policies import RateLimit


class Throttle:
    """Tells how long to wait before the next records may be taken.

    :param limit: the rates; None: never wait.
    :param clock: where the time comes from.
    """

    def __init__(self, limit: RateLimit | None, clock: Clock) -> None:
        self._clock = clock
        self._records_rate = None if limit is None else limit.records_per_second
        self._bytes_rate = None if limit is None else limit.bytes_per_second
        self._records_free_at = 0.0
        self._bytes_free_at = 0.0

    def delay(self, *, records: int, nbytes: int) -> float:
        """Book some records and bytes; return the seconds to wait before taking them."""
        now = self._clock.monotonic()
        delay = 0.0
        if self._records_rate is not None:
            delay = max(delay, self._records_free_at - now)
            self._records_free_at = max(now, self._records_free_at) + records / self._records_rate
        if self._bytes_rate is not None:
            delay = max(delay, self._bytes_free_at - now)
            self._bytes_free_at = max(now, self._bytes_free_at) + nbytes / self._bytes_rate
        return delay

    @property
    def page_records(self) -> int | None:
        """Records that make up one second at the allowed rate; a page should not hold more."""
        return None if self._records_rate is None else max(1, int(self._records_rate))

    @property
    def page_bytes(self) -> int | None:
        """Bytes that make up one second at the allowed rate."""
        return None if self._bytes_rate is None else max(1, int(self._bytes_rate))
