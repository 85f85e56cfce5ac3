"""An Elasticsearch source with its connections made."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_batchkit.connectors.elasticsearch.point_in_time import PointsInTime
from airflow_batchkit.connectors.elasticsearch.query import resolved
from airflow_batchkit.connectors.elasticsearch.reader import WindowReader
from airflow_batchkit.connectors.elasticsearch.search import ShardSearch
from airflow_batchkit.connectors.elasticsearch.sort import SortReader, sort_for

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_batchkit.connectors.elasticsearch.projection import Projection
    from airflow_batchkit.connectors.elasticsearch.rest import Rest
    from airflow_batchkit.connectors.elasticsearch.shards import Shard
    from airflow_batchkit.connectors.elasticsearch.survey import Survey
    from airflow_batchkit.engine.source import OpenContext
    from airflow_batchkit.engine.types import Cursor, Page, Sizing, Total


class OpenElasticsearchSource:
    """Made by :meth:`~airflow_batchkit.connectors.elasticsearch.source.ElasticsearchSource.open`.

    :param context: what the source was opened with.
    :param rest: the connections; closed with the source.
    :param survey: what was found on the server.
    :param query: resolved, with the filters of a partial run.
    :param sort: an order of the user's own; empty for that of the sequence numbers.
    :param projection: what is asked of each document.
    :param total: how many match; None where that is unknown.
    :param fingerprints: of the shards and of the query as the user wrote it.
    :param start: the cursor of a partial run; None begins at the beginning.
    :param keep_alive: of the points in time.
    """

    def __init__(
        self,
        context: OpenContext,
        *,
        rest: Rest,
        survey: Survey,
        query: Mapping[str, Any],
        sort: Sequence[str | Mapping[str, Any]],
        projection: Projection,
        total: Total | None,
        fingerprints: Mapping[str, str],
        start: Cursor | None,
        keep_alive: timedelta,
    ) -> None:
        self._log = context.log
        self._rest = rest
        self._survey = survey
        self._query = query
        self._sort = sort
        self._projection = projection
        self._now = context.now
        self._total = total
        self._fingerprints = fingerprints
        self._start = start
        self._keep_alive = keep_alive
        self._points_in_time = PointsInTime(rest, keep_alive=keep_alive, log=context.log)
        self._closing = threading.Event()
        self._counting = threading.Lock()
        self._snapshots = max(1, int(context.state.get("snapshots", 1)))

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Which shards, by their UUIDs and histories, and the query as the user wrote it."""
        return self._fingerprints

    @property
    def partitions(self) -> Sequence[str]:
        """One per shard: ``<index>.<shard>``."""
        return [shard.name for shard in self._survey.shards]

    @property
    def total(self) -> Total | None:
        """What the query matched when the source was opened."""
        return self._total

    @property
    def environment(self) -> Mapping[str, Any]:
        """Cluster and indices as they were when the source was opened."""
        return self._survey.facts

    @property
    def state(self) -> Mapping[str, Any]:
        """How many snapshots the export spans, and until when its indices were made."""
        return {"snapshots": self._snapshots, "indices_until": self._survey.newest}

    def read(self, partition: int, after: Cursor | None, sizing: Sizing) -> Iterator[Page]:
        """Read one shard strictly after a cursor: by its sequence numbers, or by the keys of a sort."""
        shard = self._survey.shards[partition]
        after = self._start if after is None else after
        search = self._search(shard, snapshots=(after or {}).get("snapshots", 0), sizing=sizing)
        sort = sort_for(shard, self._sort)
        if sort is not None:
            return SortReader(search, sort=sort, after=after).pages()
        return WindowReader(
            search,
            sizing=sizing,
            after=after,
            # A window must be through long before the server gives the snapshot up.
            patience=self._keep_alive.total_seconds() / 3,
            log=self._log,
        ).pages()

    def close(self) -> None:
        """Close the points in time, as long as the server answers, and all connections, also those in use."""
        self._closing.set()
        self._points_in_time.close_all()
        self._rest.close()

    def _search(self, shard: Shard, *, snapshots: int, sizing: Sizing) -> ShardSearch:
        query = self._query
        if shard.filter is not None:
            query = {"bool": {"filter": [resolved(shard.filter, self._now), query]}}
        return ShardSearch(
            shard,
            points_in_time=self._points_in_time,
            query=query,
            projection=self._projection,
            with_index=self._survey.with_index,
            sizing=sizing,
            snapshots=snapshots,
            on_snapshot=self._count_snapshot,
            closing=self._closing,
            log=self._log,
        )

    def _count_snapshot(self, snapshots: int) -> None:
        with self._counting:
            self._snapshots = max(self._snapshots, snapshots)
