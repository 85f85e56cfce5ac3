"""An order of the user's own, or of a time series, and reading one shard in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_batchkit.engine.exceptions import OrderError, PermanentError, UsageError
from airflow_batchkit.engine.types import Page

if TYPE_CHECKING:
    import logging

    from airflow_batchkit.connectors.elasticsearch.point_in_time import PointInTime
    from airflow_batchkit.connectors.elasticsearch.search import Fetched, ShardSearch
    from airflow_batchkit.connectors.elasticsearch.shards import Shard
    from airflow_batchkit.engine.types import Cursor

# Eight open partitions and all else fit the 4 KB of a checkpoint.
MAX_CURSOR_BYTES = 300
# A document of a time series is identified by these two, and this is the order that it is stored in.
TIME_SERIES_SORT = ({"_tsid": "asc"}, {"@timestamp": "desc"})
# They change when a document is indexed again, or from one copy of a shard to the other.
_NOT_KEPT = {
    "_score": "it depends on the query's statistics",
    "_doc": "it differs from copy to copy",
    "_shard_doc": "it ends with the point in time",
    "_seq_no": "it changes with every update; leave sort out to read by sequence numbers",
    "_script": "a script's result may change",
}


def check_sort(sort: Sequence[str | Mapping[str, Any]]) -> None:
    """Refuse an order that no run can go on in.

    :raises UsageError: which key, and why.
    """
    for clause in normal(sort):
        for name in clause:
            if name in _NOT_KEPT:
                raise UsageError(f"sort by {name}: no run can go on in that order: {_NOT_KEPT[name]}")


def normal(sort: Sequence[str | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the keys as Elasticsearch takes them; ``"created_at:desc"`` becomes ``{"created_at": "desc"}``.

    :raises UsageError: a key is neither a name nor a mapping with one name.
    """
    if isinstance(sort, str):
        raise UsageError(f'sort={sort!r}: give a list, such as ["created_at", "order_id"]')
    clauses: list[dict[str, Any]] = []
    for key in sort:
        if isinstance(key, str) and key.rpartition(":")[0 if ":" in key else 2]:
            name, _, order = key.rpartition(":") if ":" in key else (key, "", "asc")
            clauses.append({name: order})
        elif isinstance(key, Mapping) and len(key) == 1:
            clauses.append(dict(key))
        else:
            raise UsageError(f'sort key {key!r}: must be "field", "field:desc" or {{"field": {{…}}}}')
    return clauses


def sort_for(shard: Shard, asked: Sequence[str | Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """Return the order to read a shard in; None for that of its sequence numbers.

    :param asked: the user's own.
    """
    if asked:
        return normal(asked)
    return normal(TIME_SERIES_SORT) if shard.index.time_series and not _has_windows(shard) else None


def warn_of_single_windows(
    shards: Sequence[Shard], asked: Sequence[str | Mapping[str, Any]], log: logging.Logger
) -> None:
    """Say once what it costs that some shards can neither be cut into windows nor have an order.

    :param asked: the user's own order.
    """
    single = [shard for shard in shards if sort_for(shard, asked) is None and not _has_windows(shard)]
    if single:
        why = "have no sequence numbers" if single[0].history else "may not be asked for their statistics"
        log.warning(
            "%d shards, such as %s, %s: each is read as one window, and again from its beginning after an "
            "interruption; a sort that ends in a unique field avoids that", len(single), single[0].about, why,
        )  # fmt: skip


def _has_windows(shard: Shard) -> bool:
    return shard.index.sequence_numbers and shard.history is not None


class SortReader:
    """Reads one shard in an order whose keys no two documents share, from a cursor to its end.

    The server orders by the keys, and inside a point in time by the shard's own order besides: documents with
    equal keys are next to each other and none is passed over, so that they are noticed here.

    :param search: the shard's searches.
    :param sort: the keys, as Elasticsearch takes them.
    :param after: the cursor; None for the beginning.
    """

    def __init__(
        self, search: ShardSearch, *, sort: Sequence[Mapping[str, Any]], after: Cursor | None
    ) -> None:
        self._search = search
        self._sort = sort
        self._view: PointInTime | None = None
        self._key: tuple[Any, ...] | None = tuple(after["sort"]) if after else None
        self._id: str | None = after["id"] if after else None
        self._position: int = -1

    def pages(self) -> Iterator[Page]:
        """Yield the pages; a run can go on after any of their records.

        :raises OrderError: two documents share all keys.
        :raises TransientError: reading has to go on from the last cursor.
        """
        try:
            full = True
            while full:
                fetched = self._search.in_view(self._fetch)
                full = fetched.full
                records = self._checked(fetched.records)
                if records:
                    self._search.used()
                    yield Page(records, fetched.nbytes, cursor_at=self._cursors(records))
        finally:
            self._search.close()

    def _fetch(self) -> Fetched:
        view = self._search.view()
        if view is not self._view:
            # In a new view the last record comes once more: whoever shares its keys would be next to it.
            self._position = -1
        fetched = self._search.page(
            self._sort, search_after=None if self._key is None else [*self._key, self._position]
        )
        self._view = view
        return fetched

    def _checked(self, records: list[Any]) -> list[Any]:
        """Return the records that are new, and remember where they end.

        :raises OrderError: two documents share all keys.
        """
        repeated = 0
        for record in records:
            *keys, self._position = record.sort
            key = tuple(keys)
            if key == self._key:
                if record.id != self._id:
                    raise OrderError(
                        f"{self._search.about}: documents {self._id!r} and {record.id!r} share all keys of "
                        "the sort: add a field to its end that no two documents share"
                    )
                repeated += 1
            self._key, self._id = key, record.id
        return records[repeated:]

    def _cursors(self, records: Sequence[Any]) -> Callable[[int], Cursor]:
        snapshots = self._search.snapshots

        def cursor_at(number: int) -> Cursor:
            record = records[number]
            cursor = {"sort": record.sort[:-1], "id": record.id, "snapshots": snapshots}
            size = len(msgspec.json.encode(cursor))
            if size > MAX_CURSOR_BYTES:
                raise PermanentError(
                    f"{self._search.about}: the sort keys of document {record.id!r} take {size} bytes, more "
                    f"than the {MAX_CURSOR_BYTES} that a checkpoint has for them: sort by shorter fields"
                )
            return cursor

        return cursor_at
