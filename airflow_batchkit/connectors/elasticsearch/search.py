"""Searching one shard page by page: in a frozen view, and in a new one where that was lost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_batchkit.connectors.elasticsearch.errors import AnswerTooLargeError, PointInTimeLostError
from airflow_batchkit.connectors.elasticsearch.pages import decode_page
from airflow_batchkit.connectors.elasticsearch.windows import PageSizer
from airflow_batchkit.engine.exceptions import PushbackError, TransientError

if TYPE_CHECKING:
    import logging
    import threading

    from airflow_batchkit.connectors.elasticsearch.point_in_time import PointInTime, PointsInTime
    from airflow_batchkit.connectors.elasticsearch.projection import Projection
    from airflow_batchkit.connectors.elasticsearch.shards import Shard
    from airflow_batchkit.engine.types import Sizing

# A page can be asked for again as it was; longer troubles are the engine's, which reads the window again.
PAUSES = (0.5, 2.0)
LONGEST_PAUSE = 30.0
Made = TypeVar("Made")


@dataclass(slots=True)
class Fetched:
    """One page as it came.

    :param records: the hits.
    :param nbytes: of the whole answer.
    :param seconds: it took to come.
    :param full: there may be more.
    :param total: hits in all, where they were counted.
    """

    records: list[Any]
    nbytes: int
    seconds: float
    full: bool
    total: int | None


class ShardSearch:
    """The searches of one shard, and the snapshots that their answers come from.

    :param shard: which shard.
    :param points_in_time: opens frozen views.
    :param query: the resolved query, the alias's filter in it.
    :param projection: what is asked of each document.
    :param with_index: set ``Record.index``.
    :param sizing: wishes for pages.
    :param snapshots: how many snapshots an earlier leg read the shard from.
    :param on_snapshot: told that number whenever it grows.
    :param closing: set when the source is closed.
    :param log: for what is worth knowing.
    """

    def __init__(
        self,
        shard: Shard,
        *,
        points_in_time: PointsInTime,
        query: Mapping[str, Any],
        projection: Projection,
        with_index: bool,
        sizing: Sizing,
        snapshots: int,
        on_snapshot: Callable[[int], None],
        closing: threading.Event,
        log: logging.Logger,
    ) -> None:
        self.about = shard.about
        self.snapshots = snapshots
        self._shard = shard
        self._points_in_time = points_in_time
        self._query = query
        self._projection = projection
        self._with_index = with_index
        self._sizing = sizing
        self._on_snapshot = on_snapshot
        self._closing = closing
        self._log = log
        self._pages = PageSizer(sizing, max_records=shard.index.max_result_window)
        self._view: PointInTime | None = None
        # Whether a window was handed out that came from the last of the snapshots.
        self._used = snapshots > 0

    def view(self) -> PointInTime:
        """Return the open frozen view, or a new one."""
        if self._view is None:
            self._view = self.insist(self._open)
        return self._view

    def used(self) -> None:
        """Take in that a window from this view is handed out: the next view is another snapshot."""
        self._used = True

    def in_view(self, request: Callable[[], Made]) -> Made:
        """Make requests of which nobody knows yet, in a new view where the open one turns out to be lost."""
        fresh = self._view is None
        try:
            return request()
        except PointInTimeLostError as error:
            if fresh:
                raise
            self._log.warning("%s; going on in a new point in time", error)
            self.close()
        return self.in_view(request)

    def page(
        self,
        sort: Sequence[Any],
        *filters: Mapping[str, Any],
        search_after: Sequence[Any] | None = None,
        counted: bool = False,
    ) -> Fetched:
        """Read one page, with fewer records where the answer grows too large.

        :param filters: what else must match besides the query.
        :param search_after: the sort values of the record to go on after.
        :param counted: count the hits of the whole search.
        """
        view = self.view()
        while True:
            size = self._pages.records
            body = {
                "size": size,
                "sort": sort,
                "track_total_hits": counted,
                "query": self.matching(*filters),
                **({"search_after": search_after} if search_after is not None else {}),
                **({"version": True} if self.snapshots > 1 else {}),
                **self._projection.body,
            }
            try:
                return self.insist(partial(self._page, view, body, size))
            except AnswerTooLargeError as error:
                self._log.debug("%s: %s for %d records; asking for fewer", self.about, error, size)
                self._pages.shrink()

    def ask(self, body: Mapping[str, Any]) -> bytes:
        """Search in the view for something else than documents, and return the answer as it came."""
        return self.insist(partial(self.view().search, {**body, **self._projection.runtime}))

    def matching(self, *filters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the query together with filters."""
        return {"bool": {"filter": [*filters, self._query]}}

    def insist(self, request: Callable[[], Made]) -> Made:
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

    def close(self) -> None:
        """Give the view back."""
        if self._view is not None:
            self._points_in_time.close(self._view)
        self._view = None

    def _open(self) -> PointInTime:
        self._log.debug("%s: opening a point in time", self.about)
        opened = self._points_in_time.open(self._shard)
        if self._used or not self.snapshots:
            self.snapshots += 1
            self._used = False
            self._on_snapshot(self.snapshots)
        if self.snapshots > 1:
            self._log.warning(
                "%s: this export spans %d snapshots: what changed in between may appear twice, "
                "the newer one with its _version", self.about, self.snapshots,
            )  # fmt: skip
        self._pages = PageSizer(
            self._sizing,
            max_records=self._shard.index.max_result_window,
            bytes_on_disk=opened.average_bytes_on_disk,
        )
        return opened

    def _page(self, view: PointInTime, body: Mapping[str, Any], size: int) -> Fetched:
        started = time.monotonic()
        raw = view.search(body, max_bytes=self._pages.max_bytes)
        answer = decode_page(
            raw, with_index=self._with_index, fields=self._projection.only_fields, about=self.about
        )
        view.id = answer.pit_id
        hits = answer.hits
        self._pages.learn(records=len(hits.hits), nbytes=len(raw))
        return Fetched(
            hits.hits,
            len(raw),
            time.monotonic() - started,
            len(hits.hits) == size,
            hits.total.value if hits.total else None,
        )
