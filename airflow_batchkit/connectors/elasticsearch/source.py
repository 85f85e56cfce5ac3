"""The Elasticsearch source: one partition per shard of one or several concrete indices."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch.open_source import OpenElasticsearchSource
from airflow_batchkit.connectors.elasticsearch.query import canonical, check_query, resolved
from airflow_batchkit.connectors.elasticsearch.rest import Rest
from airflow_batchkit.connectors.elasticsearch.shards import check_index_name, fingerprint
from airflow_batchkit.connectors.elasticsearch.start import parse_start
from airflow_batchkit.connectors.elasticsearch.survey import count, survey
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.types import Total
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.connectors.elasticsearch.start import Start
    from airflow_batchkit.engine.source import OpenContext

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
        start = parse_start(context.start_at, self.date_field)
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
        found = survey(rest, self.indices, context.log)
        context.log.debug("query: %s", canonical(query))
        counted = query
        if start.cursor is not None:
            numbers = {"range": {"_seq_no": {"gt": start.cursor["seq_no"]}}}
            counted = {"bool": {"filter": [numbers, query]}}
        asked = {"query": self.query, "start": [start.cursor, start.filters]}
        return OpenElasticsearchSource(
            context,
            rest=rest,
            survey=found,
            query=query,
            total=Total(records=count(rest, self.indices, counted, context.log)),
            fingerprints={
                "source": fingerprint(found.shards),
                "query": hashlib.sha256(canonical(asked).encode()).hexdigest()[:16],
            },
            start=start.cursor,
            keep_alive=self.keep_alive,
            with_index=len(self.indices) > 1,
        )
