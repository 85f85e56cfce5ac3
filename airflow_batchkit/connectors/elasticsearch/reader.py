"""Reading one shard by sequence numbers: windows of them, and inside each pages in the shard's own order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_batchkit.connectors.elasticsearch.pages import check_order, decode_positions
from airflow_batchkit.connectors.elasticsearch.windows import WindowSizer
from airflow_batchkit.engine.types import Page

if TYPE_CHECKING:
    import logging

    from airflow_batchkit.connectors.elasticsearch.search import Fetched, ShardSearch
    from airflow_batchkit.engine.types import Cursor, Sizing


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

    def take(self, fetched: Fetched) -> None:
        """Count one page in."""
        self.records += len(fetched.records)
        self.nbytes += fetched.nbytes
        self.read_seconds += fetched.seconds


class WindowReader:
    """Reads one shard from a cursor to its end.

    :param search: the shard's searches.
    :param sizing: wishes for windows.
    :param after: the cursor; None for the beginning.
    :param patience: seconds that a window may take with all its waiting: well below the keep-alive.
    :param log: for what is worth knowing.
    """

    def __init__(
        self,
        search: ShardSearch,
        *,
        sizing: Sizing,
        after: Cursor | None,
        patience: float,
        log: logging.Logger,
    ) -> None:
        self._search = search
        self._log = log
        cursor = after or {"seq_no": -1}
        self._position: int = cursor["seq_no"]
        self._finished = bool(cursor.get("end"))
        self._windows = WindowSizer(sizing, patience=patience)

    def pages(self) -> Iterator[Page]:
        """Yield the pages; the last one of each window carries the cursor to resume after.

        :raises TransientError: the window in progress has to be read again from its beginning.
        """
        try:
            while not self._finished:
                yield from self._window()
        finally:
            self._search.close()

    def _window(self) -> Iterator[Page]:
        window, fetched = self._first_page()
        last = check_order(fetched.records, -1, about=self._search.about)
        self._search.used()
        while fetched.full:
            yield Page(fetched.records, fetched.nbytes)
            fetched = self._page(window, search_after=last)
            last = check_order(fetched.records, last, about=self._search.about)
        self._finished = window.end is None
        self._position = self._position if window.end is None else window.end
        yield Page(fetched.records, fetched.nbytes, window_end=self._cursor())
        self._learn(window)

    def _cursor(self) -> dict[str, Any]:
        """Return the cursor after the window that was read last.

        The last window holds what a point in time shows beyond its bound, where lower numbers may still
        arrive: after it there is no number to go on from, and nothing to go on to either.
        """
        cursor: dict[str, Any] = {"seq_no": self._position, "snapshots": self._search.snapshots}
        return {**cursor, "end": True} if self._finished else cursor

    def _first_page(self) -> tuple[_Window, Fetched]:
        """Find the next window that holds anything, and read its first page.

        Until that page is handed out nobody knows of the window, so that here its end can still be moved,
        and a lost point in time be replaced.
        """
        while True:
            found = self._search.in_view(self._try_window)
            if found is not None:
                return found

    def _try_window(self) -> tuple[_Window, Fetched] | None:
        """Read the next window's first page; None where another window has to be chosen."""
        bound = self._search.view().bound
        left = bound - self._position
        end = self._position + min(left, self._windows.width) if left > 0 else None
        window = _Window(self._position, end)
        fetched = self._page(window)
        return None if self._moved(bound, window, fetched) else (window, fetched)

    def _moved(self, bound: int, window: _Window, fetched: Fetched) -> bool:
        """Choose another window where this one holds far too much, or nothing; tell whether that was so."""
        if window.end is None:
            return False
        if fetched.total is not None and self._windows.narrow(width=window.width, records=fetched.total):
            return True
        if fetched.records:
            return False
        self._learn(window)
        following = self._following(window.end)
        self._position = bound if following is None else min(following - 1, bound)
        return True

    def _following(self, position: int) -> int | None:
        """Return the first sequence number after a position that matches the query."""
        body = {
            "size": 1,
            "sort": [{"_seq_no": "asc"}],
            "_source": False,
            "track_total_hits": False,
            "query": self._search.matching(_between(position, None)),
        }
        answer = decode_positions(self._search.ask(body), about=self._search.about)
        return answer.hits.hits[0].sort[0] if answer.hits.hits else None

    def _page(self, window: _Window, search_after: int | None = None) -> Fetched:
        # Sequence numbers are unique: only a window wider than what it should hold can hold too much.
        counted = search_after is None and window.width > self._windows.records
        # Without sequence numbers, or without a bound, there is one window: everything.
        everything = window.after < 0 and window.end is None
        fetched = self._search.page(
            ["_shard_doc"],
            *(() if everything else (_between(window.after, window.end),)),
            search_after=None if search_after is None else [search_after],
            counted=counted,
        )
        window.take(fetched)
        return fetched

    def _learn(self, window: _Window) -> None:
        self._log.debug(
            "%s: window after %d to %s held %d records in %d bytes, read in %.3f s",
            self._search.about, window.after, "the end" if window.end is None else window.end,
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


def _between(after: int, end: int | None) -> Mapping[str, Any]:
    numbers = {"gt": after} if end is None else {"gt": after, "lte": end}
    return {"range": {"_seq_no": numbers}}
