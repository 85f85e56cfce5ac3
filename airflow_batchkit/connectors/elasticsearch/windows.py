"""How large a page and a window of sequence numbers should be; arithmetic only, no clock and no server."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_batchkit.engine.types import Sizing

FIRST_WINDOW_RECORDS = 5_000
PAGE_GROWTH = 2
WINDOW_GROWTH = 8
# Documents differ: a window that aims at a whole batch ends half of the time in a second, tiny one.
WINDOW_FILL = 0.95
# An index is compressed, so that its size on disk only bounds the first guess at the size of an answer.
DISK_TO_ANSWER = 4


class PageSizer:
    """Learns how many records make one page.

    :param sizing: ``page_bytes`` is aimed at, ``page_records`` never exceeded.
    :param max_records: the index's ``max_result_window``.
    :param bytes_on_disk: average size of a document on disk; 0 where it is unknown.
    """

    def __init__(self, sizing: Sizing, *, max_records: int, bytes_on_disk: float = 0) -> None:
        self._sizing = sizing
        self._max_records = max_records
        first = sizing.first_page_records
        if bytes_on_disk:
            first = min(first, int(sizing.page_bytes / (bytes_on_disk * DISK_TO_ANSWER)))
        self.records = max(1, min(first, self._limit))

    @property
    def max_bytes(self) -> int | None:
        """Where an answer is given up and asked for again with fewer records; None for a single record."""
        return None if self.records == 1 else 8 * self._sizing.page_bytes

    def learn(self, *, records: int, nbytes: int) -> None:
        """Take in one answer."""
        if records:
            fitting = int(self._sizing.page_bytes * records / max(1, nbytes))
            self.records = max(1, min(fitting, self.records * PAGE_GROWTH, self._limit))

    @property
    def _limit(self) -> int:
        return max(1, min(self._sizing.page_records, self._max_records))

    def shrink(self) -> None:
        """Take in that an answer was given up."""
        self.records = max(1, self.records // 8)


class WindowSizer:
    """Learns how many sequence numbers make one window.

    :param sizing: ``batch_records``, ``batch_bytes`` and ``window_seconds`` limit a window.
    :param patience: seconds that a window may take with all the waiting for its consumer.
    """

    def __init__(self, sizing: Sizing, *, patience: float) -> None:
        self._sizing = sizing
        self._patience = patience
        self.records = min(FIRST_WINDOW_RECORDS, sizing.batch_records or FIRST_WINDOW_RECORDS)
        self.width = self.records

    def learn(self, *, width: int, records: int, nbytes: int, read_seconds: float, seconds: float) -> None:
        """Take in one window.

        :param width: how many sequence numbers it spanned.
        :param records: how many of them matched.
        :param nbytes: bytes of its answers.
        :param read_seconds: time spent waiting for the server.
        :param seconds: time from its beginning until its last page was taken.
        """
        if records == 0:
            self.width = width * WINDOW_GROWTH
            return
        limits = [
            WINDOW_FILL * self._sizing.batch_bytes * records / max(1, nbytes),
            self._sizing.window_seconds * records / max(1e-6, read_seconds),
            self._patience * records / max(1e-6, seconds),
        ]
        if self._sizing.batch_records is not None:
            limits.append(self._sizing.batch_records)
        self.records = max(1, int(min(limits)))
        fitting = self.records * width // records
        self.width = max(1, min(fitting, width * WINDOW_GROWTH))

    def narrow(self, *, width: int, records: int) -> bool:
        """Make the next window smaller where one turns out to hold far too much; tell whether that was so.

        :param width: of the window.
        :param records: how many match in it.
        """
        if records <= 2 * self.records or width <= 1:
            return False
        self.width = max(1, width * self.records // records)
        return True
