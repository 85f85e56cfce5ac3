"""Reads an Elasticsearch source in a test as the engine does: windows that break off are read again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch.client import ElasticsearchEndpoint, connect
from airflow_batchkit.connectors.elasticsearch.open_source import OpenElasticsearchSource
from airflow_batchkit.connectors.elasticsearch.source import ElasticsearchSource
from airflow_batchkit.engine.connections import Connections
from airflow_batchkit.engine.exceptions import TransientError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.engine.types import Cursor, Page, Record, Sizing

if TYPE_CHECKING:
    from tests.support.elasticsearch import ElasticsearchEndpoint as Server

SMALL = Sizing(batch_records=100, batch_bytes=1024 * 1024, page_records=30)
LARGE = Sizing(batch_records=None, batch_bytes=32 * 1024 * 1024)
NOW = datetime(2026, 11, 23, 10, 30, 15, 250_000, tzinfo=UTC)
MOST_READS = 5


class OneServer(Connections):
    """Resolves every connection to one server.

    :param where: its URL, or how to get in as well.
    """

    def __init__(self, where: str | ElasticsearchEndpoint) -> None:
        self._endpoint = ElasticsearchEndpoint(hosts=(where,)) if isinstance(where, str) else where

    @override
    def client(self, kind: str, conn_id: str, *, timeouts: Timeouts) -> Any:
        assert kind == "elasticsearch"
        return connect(self._endpoint, timeouts)


def context(where: str | ElasticsearchEndpoint, **settings: Any) -> OpenContext:
    """Return what a source is opened with."""
    return OpenContext(**{"connections": OneServer(where), "timeouts": Timeouts(), "now": NOW, **settings})


@contextmanager
def opened(
    source: ElasticsearchSource, where: str | ElasticsearchEndpoint, **settings: Any
) -> Iterator[OpenElasticsearchSource]:
    """Open a source for a ``with`` block."""
    open_source = source.open(context(where, **settings))
    try:
        yield open_source
    finally:
        open_source.close()


@dataclass
class Reading:
    """What was read of one partition.

    :param records: of complete windows, in order.
    :param cursors: the ends of the windows.
    :param broken_off: how often a window had to be read again.
    """

    records: list[Record] = field(default_factory=list)
    cursors: list[Cursor] = field(default_factory=list)
    broken_off: int = 0


def read_partition(
    source: OpenElasticsearchSource,
    partition: int,
    sizing: Sizing = LARGE,
    *,
    after: Cursor | None = None,
    on_page: Callable[[int], None] = lambda _number: None,
) -> Reading:
    """Read a partition to its end.

    :param on_page: called with 1, 2, 3… after each page, while the reader waits.
    """
    reading = Reading()
    number = 0
    while True:
        window: list[Record] = []
        try:
            for page in source.read(partition, after, sizing):
                window += page.records
                end = page.window_end
                if page.cursor_at is not None:
                    end = json.loads(json.dumps(page.cursor_at(len(page.records) - 1)))
                if end is not None:
                    reading.records += window
                    window = []
                    after = end
                    reading.cursors.append(after)
                number += 1
                on_page(number)
        except TransientError:
            reading.broken_off += 1
            if reading.broken_off >= MOST_READS:
                raise
        else:
            assert not window, "the partition ended within a window"
            return reading


def read_all(source: OpenElasticsearchSource, sizing: Sizing = LARGE) -> list[Record]:
    """Read all partitions, one after the other."""
    return [
        record
        for partition in range(len(source.partitions))
        for record in read_partition(source, partition, sizing).records
    ]


def pages_of(source: OpenElasticsearchSource, sizing: Sizing = LARGE) -> list[Page]:
    """Read all partitions, one after the other, page by page."""
    return [
        page for partition in range(len(source.partitions)) for page in source.read(partition, None, sizing)
    ]


def make_index(server: Server, name: str, *, shards: int = 1, **settings: Any) -> None:
    """Make an index without replicas that takes any JSON object without looking into it."""
    body = {
        "settings": {"number_of_shards": shards, "number_of_replicas": 0, **settings},
        "mappings": {"dynamic": False, "properties": {"n": {"type": "long"}, "at": {"type": "date"}}},
    }
    server.request("PUT", f"/{name}", body)


def put_all(server: Server, name: str, documents: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
    """Index documents by id in one request, and make them visible."""
    pairs = documents.items() if isinstance(documents, Mapping) else documents
    lines = [
        line
        for id_, document in pairs
        for line in (json.dumps({"index": {"_id": id_}}), json.dumps(document))
    ]
    answer = server.request("POST", f"/{name}/_bulk?refresh=true", ("\n".join(lines) + "\n").encode())
    assert not answer["errors"]
