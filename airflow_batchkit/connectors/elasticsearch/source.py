"""The Elasticsearch source: one partition per shard of all the indices that its names stand for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch.members import Names, check_expression
from airflow_batchkit.connectors.elasticsearch.open_source import OpenElasticsearchSource
from airflow_batchkit.connectors.elasticsearch.projection import Projection
from airflow_batchkit.connectors.elasticsearch.query import canonical, check_query, resolved
from airflow_batchkit.connectors.elasticsearch.rest import Rest
from airflow_batchkit.connectors.elasticsearch.shards import fingerprint
from airflow_batchkit.connectors.elasticsearch.sort import check_sort, normal, warn_of_single_windows
from airflow_batchkit.connectors.elasticsearch.start import parse_start
from airflow_batchkit.connectors.elasticsearch.survey import check_source_is_stored, count, survey
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.connectors.elasticsearch.start import Start
    from airflow_batchkit.engine.source import OpenContext

LONGEST_KEEP_ALIVE = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True, repr=False)
class ElasticsearchSource(Value):
    """Documents of one index, or of all that an alias, a data stream or a pattern stands for.

    Each comes exactly as it was indexed, unless some of its fields are asked for. What an alias hides, by its
    filter or its search routing, stays hidden.

    :param conn_id: connection to Elasticsearch. Default ``elasticsearch_default``.
    :param index: an index, alias, data stream or pattern such as ``orders-*``, or a list of them, in which
        ``-orders-test`` takes out of what comes before it. Templated. Resolved when a run begins.
    :param query: the body of ``query``; None for every document. Templated. Date math with ``now`` in a range
        means the run's start on every page.
    :param sort: the order in which each shard is read: ``["created_at", "order_id:desc"]``; together no two
        documents may share them. Three to four times slower than the default, which is the order of the
        sequence numbers.
    :param source_includes: of each document only these fields, with wildcards. Templated.
    :param source_excludes: of each document not these fields, with wildcards. Templated.
    :param fields: instead of each document an object of these values, as Elasticsearch's ``fields`` option
        gives them: lists, in the mapping's types. Templated.
    :param runtime_mappings: fields that exist only in this search, as Elasticsearch takes them. Templated.
    :param ignore_unavailable: leave out, with a warning, what is missing or closed. Default False: refuse it.
    :param allow_no_indices: where the names stand for nothing, read nothing. Default False: refuse that.
    :param date_field: lets a partial run start at a date: documents from then on in this field.
    :param keep_alive: how long the server keeps a snapshot between two pages, at most 10 min. Default 5 min.
    """

    __templated__ = (
        "index", "query", "source_includes", "source_excludes", "fields", "runtime_mappings",
    )  # fmt: skip

    index: str | Sequence[str]
    query: Mapping[str, Any] | None = None
    conn_id: str = "elasticsearch_default"
    sort: Sequence[str | Mapping[str, Any]] = ()
    source_includes: Sequence[str] = ()
    source_excludes: Sequence[str] = ()
    fields: Sequence[str | Mapping[str, Any]] = ()
    runtime_mappings: Mapping[str, Any] | None = None
    ignore_unavailable: bool = False
    allow_no_indices: bool = False
    date_field: str | None = None
    keep_alive: timedelta = timedelta(minutes=5)

    @property
    def names(self) -> Names:
        """What the indices are called, and what to do where a name stands for nothing."""
        return Names(
            # An exclusion belongs to what comes before it.
            expressions=(self.index,) if isinstance(self.index, str) else tuple(self.index),
            ignore_unavailable=self.ignore_unavailable,
            allow_no_indices=self.allow_no_indices,
        )

    @property
    def projection(self) -> Projection:
        """What is asked of each document."""
        return Projection(
            source_includes=self.source_includes,
            source_excludes=self.source_excludes,
            fields=self.fields,
            runtime_mappings=self.runtime_mappings,
        )

    @override
    def check(self) -> None:
        """Refuse what cannot be read or would read more than was meant.

        :raises UsageError: an index name, the query, the sort, the fields or the keep-alive, and what is
            wrong with it.
        """
        names = self.names.expressions
        if not names:
            raise UsageError("index is an empty list: name the indices to read")
        if len(set(names)) < len(names):
            raise UsageError(f"index names one index twice: {', '.join(names)}")
        for position, name in enumerate(names):
            check_expression(name, first=position == 0)
        check_query(self.query)
        check_sort(self.sort)
        self.projection.check()
        if not timedelta(seconds=1) <= self.keep_alive <= LONGEST_KEEP_ALIVE:
            raise UsageError(f"keep_alive={self.keep_alive}: must be from 1 second to 10 minutes")

    def open(self, context: OpenContext) -> OpenElasticsearchSource:
        """Connect and look: resolve shards, count, check the query.

        :raises UsageError: an index that is not there, or closed, a malformed query, wrong credentials.
        :raises TransientError: the server does not answer, or a shard is not available.
        """
        start = parse_start(context.start_at, self.date_field)
        if start.cursor is not None and self.sort:
            raise UsageError(
                "start_at with a sequence number cannot be used together with a sort: give a date"
            )
        query = start.limited(resolved(self.query, context.now))
        client = context.connections.client("elasticsearch", self.conn_id, timeouts=context.timeouts)
        rest = Rest(client, timeouts=context.timeouts, log=context.log)
        try:
            return self._open(context, rest, query, start)
        except BaseException:
            rest.close()
            raise

    def _open(
        self, context: OpenContext, rest: Rest, query: Mapping[str, Any], start: Start
    ) -> OpenElasticsearchSource:
        context.log.debug("query: %s", canonical(query))
        found = survey(rest, self.names, query, context.log, newest=context.state.get("indices_until"))
        check_source_is_stored(rest, found, about=self.names.about)
        warn_of_single_windows(found.shards, self.sort, context.log)
        counted = query
        if start.cursor is not None:
            numbers = {"range": {"_seq_no": {"gt": start.cursor["seq_no"]}}}
            counted = {"bool": {"filter": [numbers, query]}}
        return OpenElasticsearchSource(
            context,
            rest=rest,
            survey=found,
            query=query,
            sort=self.sort,
            projection=self.projection,
            total=count(rest, self.names, counted, found, context.log),
            fingerprints={
                "source": fingerprint(found.shards),
                "query": _short({"query": self.query, "start": [start.cursor, start.filters]}),
                "sort": _short(normal(self.sort)),
                "fields": _short(self.projection.body),
            },
            start=start.cursor,
            keep_alive=self.keep_alive,
        )


def _short(settings: Any) -> str:
    return hashlib.sha256(canonical(settings).encode()).hexdigest()[:16]
