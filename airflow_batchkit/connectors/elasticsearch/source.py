"""The Elasticsearch source: one partition per shard of one or several concrete indices."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch.errors import ForbiddenError
from airflow_batchkit.connectors.elasticsearch.point_in_time import PointsInTime, refresh
from airflow_batchkit.connectors.elasticsearch.query import canonical, check_query, resolved
from airflow_batchkit.connectors.elasticsearch.reader import ShardReader
from airflow_batchkit.connectors.elasticsearch.rest import Rest
from airflow_batchkit.connectors.elasticsearch.shards import (
    Shard,
    available,
    check_index_name,
    decoded,
    fingerprint,
    look_up,
    shard_states,
)
from airflow_batchkit.engine.exceptions import TransientError, UsageError
from airflow_batchkit.engine.types import Total
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.engine.source import OpenContext
    from airflow_batchkit.engine.types import Cursor, Page, Sizing

LONGEST_KEEP_ALIVE = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True, repr=False)
class ElasticsearchSource(Value):
    """Documents of one index, or of several, each exactly as it was indexed.

    :param conn_id: connection to Elasticsearch. Default ``elasticsearch_default``.
    :param index: a concrete index, or a list of them. Templated.
    :param query: the body of ``query``; None for every document. Templated. Date math with ``now`` in a range
        means the run's start on every page.
    :param date_field: lets a partial run start at a date: documents from then on in this field.
    :param keep_alive: how long the server keeps a snapshot between two pages, at most 10 min. Default 5 min.
    """

    __templated__ = ("index", "query")

    index: str | Sequence[str]
    query: Mapping[str, Any] | None = None
    conn_id: str = "elasticsearch_default"
    date_field: str | None = None
    keep_alive: timedelta = timedelta(minutes=5)

    @property
    def indices(self) -> tuple[str, ...]:
        """The names of the indices, sorted."""
        return (self.index,) if isinstance(self.index, str) else tuple(sorted(self.index))

    @override
    def check(self) -> None:
        """Refuse what cannot be read or would read more than was meant.

        :raises UsageError: an index name, the query, or the keep-alive, and what is wrong with it.
        """
        if not self.indices:
            raise UsageError("index is an empty list: name the indices to read")
        if len(set(self.indices)) < len(self.indices):
            raise UsageError(f"index names one index twice: {', '.join(self.indices)}")
        for name in self.indices:
            check_index_name(name)
        check_query(self.query)
        if not timedelta(seconds=1) <= self.keep_alive <= LONGEST_KEEP_ALIVE:
            raise UsageError(f"keep_alive={self.keep_alive}: must be from 1 second to 10 minutes")

    def open(self, context: OpenContext) -> OpenElasticsearchSource:
        """Connect and look: resolve shards, count, check the query.

        :raises UsageError: an index that is not there or not concrete, a malformed query, wrong credentials.
        :raises TransientError: the server does not answer, or a shard is not available.
        """
        query = resolved(self.query, context.now)
        start = _Start.of(context.start_at, self.date_field)
        if start.query is not None:
            query = {"bool": {"filter": [start.query, query]}}
        client = context.connections.client("elasticsearch", self.conn_id, timeouts=context.timeouts)
        rest = Rest(client, timeouts=context.timeouts, log=context.log)
        try:
            return OpenElasticsearchSource(self, context, rest=rest, query=query, start=start)
        except BaseException:
            rest.close()
            raise


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a partial run begins.

    :param cursor: in every shard, after this.
    :param query: only documents that match this.
    """

    cursor: Mapping[str, Any] | None = None
    query: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, start_at: str | None, date_field: str | None) -> _Start:
        if start_at is None:
            return cls()
        if start_at.lstrip().startswith("{"):
            return cls(cursor=_start_cursor(start_at))
        if date_field is None:
            raise UsageError(
                f"start_at={start_at!r}: to start at a date, set the source's date_field; else give a cursor "
                'such as {"seq_no": 1000}'
            )
        try:
            moment = datetime.fromisoformat(start_at)
        except ValueError as error:
            raise UsageError(f"start_at={start_at!r}: must be an ISO 8601 date, or a cursor") from error
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        text = moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return cls(query={"range": {date_field: {"gte": text, "format": "strict_date_time"}}})


class OpenElasticsearchSource:
    """An opened :class:`ElasticsearchSource`; made by its ``open``."""

    def __init__(
        self,
        source: ElasticsearchSource,
        context: OpenContext,
        *,
        rest: Rest,
        query: Mapping[str, Any],
        start: _Start,
    ) -> None:
        self._rest = rest
        self._query = query
        self._start = start.cursor
        self._log = context.log
        self._closing = threading.Event()
        self._keep_alive = source.keep_alive
        self._points_in_time = PointsInTime(rest, keep_alive=source.keep_alive, log=context.log)
        self._with_index = len(source.indices) > 1
        self._snapshots = int(context.state.get("snapshots", 0))
        self._counting = threading.Lock()
        self._shards: list[Shard] = []
        self._environment: dict[str, Any] = {"hosts": rest.hosts, **_cluster(rest)}
        self._log.info("looking up %s at %s", ", ".join(source.indices), rest.hosts)
        for name in source.indices:
            self._add(name)
        self._shards.sort(key=lambda shard: shard.name)
        asked = {"query": source.query, "start_at": context.start_at, "date_field": source.date_field}
        self._fingerprints = {
            "source": fingerprint(self._shards),
            "query": hashlib.sha256(canonical(asked).encode()).hexdigest()[:16],
        }
        self._log.info("counting what the query matches")
        self._log.debug("query: %s", canonical(query))
        self._total = Total(records=sum(self._count(name) for name in source.indices))

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Which shards, by their UUIDs and histories, and the query as the user wrote it."""
        return self._fingerprints

    @property
    def partitions(self) -> Sequence[str]:
        """One per shard: ``<index>.<shard>``."""
        return [shard.name for shard in self._shards]

    @property
    def total(self) -> Total:
        """What the query matched when the source was opened."""
        return self._total

    @property
    def environment(self) -> Mapping[str, Any]:
        """Cluster and indices as they were when the source was opened."""
        return self._environment

    @property
    def state(self) -> Mapping[str, Any]:
        """How many snapshots the export spans: 1 unless a shard had to be gone on with in a new one."""
        return {"snapshots": max(1, self._snapshots)}

    def read(self, partition: int, after: Cursor | None, sizing: Sizing) -> Iterator[Page]:
        """Read one shard strictly after a cursor; see :class:`~.reader.ShardReader`."""
        return ShardReader(
            self._shards[partition],
            points_in_time=self._points_in_time,
            query=self._query,
            with_index=self._with_index,
            sizing=sizing,
            after=self._start if after is None else after,
            patience=self._keep_alive.total_seconds() / 3,
            on_snapshot=self._count_snapshot,
            closing=self._closing,
            log=self._log,
        ).pages()

    def close(self) -> None:
        """Close the points in time, as long as the server answers, and all connections, also those in use."""
        self._closing.set()
        self._points_in_time.close_all()
        self._rest.close()

    def _add(self, name: str) -> None:
        index = look_up(self._rest, name)
        states = available(index, shard_states(self._rest, name))
        self._shards += [Shard(index, number, states[number].history) for number in range(index.shards)]
        self._environment[f"index {name}"] = {
            "uuid": index.uuid,
            "shards": index.shards,
            "documents": sum(state.docs for state in states.values()),
            "store_bytes": sum(state.store_bytes for state in states.values()),
        }
        try:
            refresh(self._rest, name)
        except ForbiddenError as error:
            self._log.warning("what was indexed in the last moments may be missing from the total: %s", error)

    def _count(self, name: str) -> int:
        query = self._query
        if self._start is not None:
            query = {"bool": {"filter": [{"range": {"_seq_no": {"gt": self._start["seq_no"]}}}, query]}}
        about = f"index {name!r}"
        answer = self._rest.call("POST", f"/{quote(name, safe='')}/_count", {"query": query}, about=about)
        counted = decoded(answer.body, _Counted, about)
        if counted.shards.failed:
            raise TransientError(f"{about}: {counted.shards.failed} shards could not count their documents")
        return counted.count

    def _count_snapshot(self, snapshots: int) -> None:
        with self._counting:
            self._snapshots = max(self._snapshots, snapshots)


def _start_cursor(text: str) -> dict[str, Any]:
    try:
        seq_no = json.loads(text)["seq_no"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f'start_at={text!r}: a cursor must look like {{"seq_no": 1000}}') from error
    if not isinstance(seq_no, int) or seq_no < 0:
        raise UsageError(f"start_at={text!r}: seq_no must be a whole number, 0 or more")
    return {"seq_no": seq_no}


def _cluster(rest: Rest) -> dict[str, Any]:
    """Return what may be known of the cluster: credentials for one index need not be allowed to ask."""
    about = "cluster health"
    answer = rest.call("GET", "/_cluster/health", about=about, expect=(403,))
    if answer.status != 200:  # noqa: PLR2004  # 403: not allowed to ask
        return {}
    health = decoded(answer.body, _Health, about)
    return {"cluster": health.cluster_name, "status": health.status, "nodes": health.number_of_nodes}


class _Health(msgspec.Struct):
    cluster_name: str = ""
    status: str = ""
    number_of_nodes: int = 0


class _Failed(msgspec.Struct):
    failed: int = 0


class _Counted(msgspec.Struct):
    count: int
    shards: _Failed = msgspec.field(name="_shards")
