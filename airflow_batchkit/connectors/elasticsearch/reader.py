"""Reading one shard: windows of sequence numbers, and inside each window pages in the shard's own order."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_batchkit.connectors.elasticsearch.errors import AnswerTooLargeError, PointInTimeLostError
from airflow_batchkit.connectors.elasticsearch.pages import check_order, decode_page, decode_positions
from airflow_batchkit.connectors.elasticsearch.windows import PageSizer, WindowSizer
from airflow_batchkit.engine.exceptions import PushbackError, TransientError
from airflow_batchkit.engine.types import Page

if TYPE_CHECKING:
    import logging
    import threading

    from airflow_batchkit.connectors.elasticsearch.point_in_time import PointInTime, PointsInTime
    from airflow_batchkit.connectors.elasticsearch.shards import Shard
    from airflow_batchkit.engine.types import Cursor, Sizing

# A page can be asked for again as it was; longer troubles are the engine's, which reads the window again.
PAUSES = (0.5, 2.0)
LONGEST_PAUSE = 30.0
Made = TypeVar("Made")


@dataclass(slots=True)
class _Window:
    """What is known of the window being read.

    :param after: it begins after this sequence number.
    :param end: the last sequence number in it; None for the last window, which has no end.
    """

    after: int
    end: int | None
    records: int = 0
    nbytes: int = 0
    read_seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def width(self) -> int:
        """How many sequence numbers it spans; 0 where it has no end."""
        return 0 if self.end is None else self.end - self.after


@dataclass(slots=True)
class _Fetched:
    """One page as it came.

    :param records: the hits.
    :param nbytes: of the whole answer.
    :param full: there may be more in the window.
    :param total: hits in the window, where they were counted.
    """

    records: list[Any]
    nbytes: int
    full: bool
    total: int | None


class ShardReader:
    """Reads one shard from a cursor to its end.

    :param shard: which shard.
    :param points_in_time: opens frozen views.
    :param query: the resolved query.
    :param with_index: set ``Record.index``.
    :param sizing: wishes for windows and pages.
    :param after: the cursor; None for the beginning.
    :param patience: seconds that a window may take with all its waiting: well below the keep-alive.
    :param on_snapshot: told how many snapshots this shard's records come from, whenever one is added.
    :param closing: set when the source is closed.
    :param log: for what is worth knowing.
    """

    def __init__(
        self,
        shard: Shard,
        *,
        points_in_time: PointsInTime,
        query: Mapping[str, Any],
        with_index: bool,
        sizing: Sizing,
        after: Cursor | None,
        patience: float,
        on_snapshot: Callable[[int], None],
        closing: threading.Event,
        log: logging.Logger,
    ) -> None:
        self._shard = shard
        self._points_in_time = points_in_time
        self._query = query
        self._with_index = with_index
        self._sizing = sizing
        self._on_snapshot = on_snapshot
        self._closing = closing
        self._log = log
        cursor = after or {"seq_no": -1}
        self._position: int = cursor["seq_no"]
        self._snapshots: int = cursor.get("snapshots", 0)
        self._begun = self._snapshots > 0
        self._finished = bool(cursor.get("end"))
        self._windows = WindowSizer(sizing, patience=patience)
        self._pages = PageSizer(sizing, max_records=shard.index.max_result_window)
        self._point_in_time: PointInTime | None = None

    def pages(self) -> Iterator[Page]:
        """Yield the pages; the last one of each window carries the cursor to resume after.

        :raises TransientError: the window in progress has to be read again from its beginning.
        """
        try:
            while not self._finished:
                yield from self._window()
        finally:
            self._close()

    def _window(self) -> Iterator[Page]:
        point_in_time, window, fetched = self._first_page()
        last = check_order(fetched.records, -1, about=self._shard.about)
        while fetched.full:
            yield Page(fetched.records, fetched.nbytes)
            fetched = self._fetch(point_in_time, window, search_after=last)
            last = check_order(fetched.records, last, about=self._shard.about)
        self._begun = True
        self._finished = window.end is None
        self._position = self._position if window.end is None else window.end
        yield Page(fetched.records, fetched.nbytes, window_end=self._cursor())
        self._learn(window)

    def _cursor(self) -> dict[str, Any]:
        """Return the cursor after the window that was read last.

        The last window holds what a point in time shows beyond its bound, where lower numbers may still
        arrive: after it there is no number to go on from, and nothing to go on to either.
        """
        cursor: dict[str, Any] = {"seq_no": self._position, "snapshots": self._snapshots}
        return {**cursor, "end": True} if self._finished else cursor

    def _first_page(self) -> tuple[PointInTime, _Window, _Fetched]:
        """Find the next window that holds anything, and read its first page.

        Until that page is handed out nobody knows of the window, so that here its end can still be moved,
        and a lost point in time be replaced.
        """
        while True:
            fresh = self._point_in_time is None
            try:
                point_in_time = self._point_in_time or self._insisting(self._begin_snapshot)
                left = point_in_time.bound - self._position
                end = self._position + min(left, self._windows.width) if left > 0 else None
                window = _Window(self._position, end)
                fetched = self._fetch(point_in_time, window)
                if not self._moved(point_in_time, window, fetched):
                    return point_in_time, window, fetched
            except PointInTimeLostError as error:
                if fresh:
                    raise
                self._log.warning("%s; going on in a new point in time", error)
                self._close()

    def _begin_snapshot(self) -> PointInTime:
        self._log.debug("%s: opening a point in time", self._shard.about)
        opened = self._points_in_time.open(self._shard)
        if self._begun or not self._snapshots:
            self._snapshots += 1
            self._on_snapshot(self._snapshots)
        if self._snapshots > 1:
            self._log.warning(
                "%s: this export spans %d snapshots: what changed in between may appear twice, "
                "the newer one with its _version", self._shard.about, self._snapshots,
            )  # fmt: skip
        self._pages = PageSizer(
            self._sizing,
            max_records=self._shard.index.max_result_window,
            bytes_on_disk=opened.average_bytes_on_disk,
        )
        self._point_in_time = opened
        return opened

    def _moved(self, point_in_time: PointInTime, window: _Window, fetched: _Fetched) -> bool:
        """Choose another window where this one holds far too much, or nothing; tell whether that was so."""
        if window.end is None:
            return False
        if fetched.total is not None and self._windows.narrow(width=window.width, records=fetched.total):
            return True
        if fetched.records:
            return False
        self._learn(window)
        following = self._following(point_in_time, window.end)
        self._position = point_in_time.bound if following is None else min(following - 1, point_in_time.bound)
        return True

    def _following(self, point_in_time: PointInTime, position: int) -> int | None:
        """Return the first sequence number after a position that matches the query."""
        body = {
            "size": 1,
            "sort": [{"_seq_no": "asc"}],
            "_source": False,
            "track_total_hits": False,
            "query": self._between(position, None),
        }

        def ask() -> int | None:
            answer = decode_positions(point_in_time.search(body), about=self._shard.about)
            return answer.hits.hits[0].sort[0] if answer.hits.hits else None

        return self._insisting(ask)

    def _fetch(
        self, point_in_time: PointInTime, window: _Window, search_after: int | None = None
    ) -> _Fetched:
        """Read one page of a window, with fewer records where the answer grows too large."""
        # Sequence numbers are unique: only a window wider than what it should hold can hold too much.
        counted = search_after is None and window.width > self._windows.records
        while True:
            size = self._pages.records
            body = {
                "size": size,
                "sort": ["_shard_doc"],
                "track_total_hits": counted,
                "query": self._between(window.after, window.end),
                **({"search_after": [search_after]} if search_after is not None else {}),
                **({"version": True} if self._snapshots > 1 else {}),
            }
            try:
                return self._page(point_in_time, window, body, size)
            except AnswerTooLargeError as error:
                self._log.debug("%s: %s for %d records; asking for fewer", self._shard.about, error, size)
                self._pages.shrink()

    def _page(
        self, point_in_time: PointInTime, window: _Window, body: Mapping[str, Any], size: int
    ) -> _Fetched:
        def ask() -> _Fetched:
            raw = point_in_time.search(body, max_bytes=self._pages.max_bytes)
            answer = decode_page(raw, with_index=self._with_index, about=self._shard.about)
            point_in_time.id = answer.pit_id
            hits = answer.hits
            return _Fetched(
                hits.hits, len(raw), len(hits.hits) == size, hits.total.value if hits.total else None
            )

        started = time.monotonic()
        fetched = self._insisting(ask)
        window.read_seconds += time.monotonic() - started
        window.records += len(fetched.records)
        window.nbytes += fetched.nbytes
        self._pages.learn(records=len(fetched.records), nbytes=fetched.nbytes)
        return fetched

    def _between(self, after: int, end: int | None) -> dict[str, Any]:
        numbers = {"gt": after} if end is None else {"gt": after, "lte": end}
        return {"bool": {"filter": [{"range": {"_seq_no": numbers}}, self._query]}}

    def _close(self) -> None:
        if self._point_in_time is not None:
            self._points_in_time.close(self._point_in_time)
        self._point_in_time = None

    def _learn(self, window: _Window) -> None:
        self._log.debug(
            "%s: window after %d to %s held %d records in %d bytes, read in %.3f s",
            self._shard.about, window.after, "the end" if window.end is None else window.end,
            window.records, window.nbytes, window.read_seconds,
        )  # fmt: skip
        if window.end is not None:
            self._windows.learn(
                width=window.width,
                records=window.records,
                nbytes=window.nbytes,
                read_seconds=window.read_seconds,
                seconds=time.monotonic() - window.began,
            )

    def _insisting(self, request: Callable[[], Made]) -> Made:
        """Make a request that changes nothing, again after a pause where the trouble is short."""
        for pause in PAUSES:
            try:
                return request()
            except (PointInTimeLostError, AnswerTooLargeError):
                raise
            except TransientError as error:
                asked = error.retry_after if isinstance(error, PushbackError) else None
                wait = max(asked or 0.0, pause * random.uniform(0.5, 1.5))
                if wait > LONGEST_PAUSE or self._closing.is_set():
                    raise
                self._log.warning("%s; asking again in %.1f s", error, wait)
                if self._closing.wait(wait):
                    raise
        return request()
