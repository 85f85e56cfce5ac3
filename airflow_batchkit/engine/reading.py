"""Reading ahead: one daemon thread per open partition, together never holding more than a few megabytes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_batchkit.engine.shrinking import Share

if TYPE_CHECKING:
    from airflow_batchkit.engine.source import OpenSource
    from airflow_batchkit.engine.types import Cursor, Page, Sizing

READ_AHEAD_BYTES = 4 * 1024 * 1024
# Smaller pages would ask the more of a server that has too much to do.
_LEAST_PAGE_RECORDS = 10
_LEAST_PAGE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a reader delivers: a page, or the partition's end (``page`` is None), or the error that ended it.

    :param reader: which reader; after an error the partition gets a new one; late pages of the old are void.
    :param partition: position of the partition.
    :param page: the page, None at the end.
    :param error: what ended the reader.
    """

    reader: int
    partition: int
    page: Page | None = None
    error: BaseException | None = None


class ReadAhead:
    """Runs the readers and queues their pages for the loop.

    :param source: the opened source.
    :param sizing: wishes for windows and pages.
    :param changed: shared with the writers, so that the loop can wait for either. Default: one of its own.
    :param max_bytes: readers wait while this much is queued; a larger page passes when nothing is queued.
    """

    def __init__(
        self,
        source: OpenSource,
        sizing: Sizing,
        *,
        changed: threading.Condition | None = None,
        max_bytes: int = READ_AHEAD_BYTES,
    ) -> None:
        self._source = source
        self._sizing = sizing
        self._max_bytes = max_bytes
        self._changed = changed or threading.Condition()
        self._queue: deque[Arrival] = deque()
        self._queued_bytes = 0
        self._stopped = False
        self._readers = 0
        self._shares: dict[int, Share] = {}

    def begin(self, partition: int, after: Cursor | None) -> int:
        """Start reading a partition strictly after a cursor; return the reader's number."""
        self._readers += 1
        reader = self._readers
        thread = threading.Thread(
            target=self._read,
            args=(reader, partition, after),
            name=f"batchkit-read-{self._source.partitions[partition]}",
            daemon=True,
        )
        thread.start()
        return reader

    def ask_for_less(self, partition: int) -> None:
        """Halve the pages that the next reader of a partition asks for; they grow back page by page."""
        share = self._shares.setdefault(partition, Share())
        share.pushed_back(share.value)

    def next(self, timeout: float, *, unless: Callable[[], bool] = lambda: False) -> Arrival | None:
        """Return the next arrival; None when there is none within ``timeout`` seconds.

        :param unless: something else that ends the waiting; asked whenever ``changed`` is notified.
        """
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue) or unless(), timeout)
            if not self._queue:
                return None
            arrival = self._queue.popleft()
            if arrival.page is not None:
                self._queued_bytes -= arrival.page.nbytes
            self._changed.notify_all()
            return arrival

    def stop(self) -> None:
        """Let the readers end at their next page; their late pages are dropped."""
        with self._changed:
            self._stopped = True
            self._queue.clear()
            self._changed.notify_all()

    def _read(self, reader: int, partition: int, after: Cursor | None) -> None:
        share = self._shares.get(partition)
        sizing = self._share_of_sizing(share)
        try:
            for page in self._source.read(partition, after, sizing):
                if not self._put(Arrival(reader, partition, page)):
                    return
                if share is not None:
                    share.succeeded()
                    grown = self._share_of_sizing(share)
                    sizing.page_records, sizing.page_bytes = grown.page_records, grown.page_bytes
        except BaseException as error:  # noqa: BLE001  # handed to the loop, which raises it in the main thread
            self._put(Arrival(reader, partition, error=error))
        else:
            self._shares.pop(partition, None)
            self._put(Arrival(reader, partition))

    def _share_of_sizing(self, share: Share | None) -> Sizing:
        share = share or Share()
        return replace(
            self._sizing,
            first_page_records=share.of(self._sizing.first_page_records),
            page_records=share.of(self._sizing.page_records, least=_LEAST_PAGE_RECORDS),
            page_bytes=share.of(self._sizing.page_bytes, least=_LEAST_PAGE_BYTES),
        )

    def _put(self, arrival: Arrival) -> bool:
        nbytes = 0 if arrival.page is None else arrival.page.nbytes
        with self._changed:
            # Without a timeout on purpose: the thread is a daemon, and stop() wakes it.
            self._changed.wait_for(
                lambda: self._stopped or not self._queue or self._queued_bytes + nbytes <= self._max_bytes
            )
            if self._stopped:
                return False
            self._queue.append(arrival)
            self._queued_bytes += nbytes
            self._changed.notify_all()
            return True
