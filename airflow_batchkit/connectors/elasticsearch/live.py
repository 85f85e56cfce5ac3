"""An index as it is now, to compare an export with it: how many documents, and some of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_batchkit.connectors.elasticsearch.members import Names
from airflow_batchkit.connectors.elasticsearch.pages import decode_plain
from airflow_batchkit.connectors.elasticsearch.projection import Projection
from airflow_batchkit.connectors.elasticsearch.query import canonical
from airflow_batchkit.connectors.elasticsearch.shards import decoded
from airflow_batchkit.engine.exceptions import TransientError

if TYPE_CHECKING:
    from airflow_batchkit.connectors.elasticsearch.rest import Rest
    from airflow_batchkit.engine.types import Record

# An id may stand for one document in each of several indices, and under each of several routing values.
_MOST_HITS = 1_000


class LiveIndex:
    """What the names of an export's source stand for today.

    :param rest: the connections; the caller closes them.
    :param names: indices, aliases, data streams or patterns, as the export was given them.
    :param query: resolved as the export's was.
    """

    def __init__(self, rest: Rest, names: Sequence[str], query: Mapping[str, Any]) -> None:
        self._rest = rest
        self._names = Names(expressions=tuple(names))
        self._query = query

    @property
    def about(self) -> str:
        """How messages call it."""
        return self._names.about

    def count(self) -> int:
        """Count what the query matches now; what is not refreshed yet is not counted.

        :raises TransientError: a shard could not count.
        """
        total = 0
        for path in self._names.paths():
            answer = self._rest.call("POST", f"/{path}/_count", {"query": self._query}, about=self.about)
            counted = decoded(answer.body, _Counted, self.about)
            if counted.shards.failed:
                raise TransientError(
                    f"{self.about}: {counted.shards.failed} shards could not count their documents"
                )
            total += counted.count
        return total

    def is_copied_whole(self, fingerprints: Mapping[str, str]) -> bool:
        """Tell from an export's fingerprints whether its lines are the documents as they were indexed."""
        whole = hashlib.sha256(canonical(Projection().body).encode()).hexdigest()[:16]
        return fingerprints.get("transform", "none") == "none" and fingerprints.get("fields", whole) == whole

    def documents(self, ids: Sequence[str]) -> list[Record]:
        """Fetch documents by their ids, with their index, routing and version, in no order.

        A search, not a get by id: that would have to know the routing.

        :raises TransientError: the answer lacks a shard.
        """
        body = {
            "query": {"ids": {"values": list(ids)}},
            "size": _MOST_HITS,
            "version": True,
            "track_total_hits": False,
        }
        target = "_search?allow_partial_search_results=false"
        found: list[Record] = []
        for path in self._names.paths():
            answer = self._rest.call("POST", f"/{path}/{target}", body, about=self.about)
            found += decode_plain(answer.body, about=self.about).hits.hits
        return found


class _Failed(msgspec.Struct):
    failed: int = 0


class _Counted(msgspec.Struct):
    count: int
    shards: _Failed = msgspec.field(name="_shards")
