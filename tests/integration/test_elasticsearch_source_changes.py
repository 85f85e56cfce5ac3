"""Documents change while they are read, and the point in time is lost: what stayed is read once."""

from __future__ import annotations

import json
import secrets
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.connectors.elasticsearch.source import ElasticsearchSource
from airflow_batchkit.engine.exceptions import PermanentError
from tests.support.elasticsearch_reading import (
    SMALL,
    make_index,
    opened,
    put_all,
    read_partition,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_batchkit.connectors.elasticsearch.open_source import OpenElasticsearchSource
    from airflow_batchkit.engine.types import Record
    from tests.support.elasticsearch import ElasticsearchEndpoint, ElasticsearchServer

pytestmark = pytest.mark.elasticsearch

COUNT = 1000


@pytest.fixture
def index(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give the name of an index of the test's own, which the test makes."""
    name = f"changes-{secrets.token_hex(4)}"
    yield name
    elasticsearch_server.request("DELETE", f"/{name}?ignore_unavailable=true")


def drop_points_in_time(source: OpenElasticsearchSource, server: ElasticsearchEndpoint) -> None:
    """Take the open points in time away behind the source's back."""
    for point_in_time in source._points_in_time._open:
        server.request("DELETE", "/_pit", {"id": point_in_time.id})


def close_and_open(server: ElasticsearchEndpoint, index: str) -> None:
    """Close the index and open it again, which frees every search context of it."""
    server.request("POST", f"/{index}/_close")
    server.request("POST", f"/{index}/_open?wait_for_active_shards=all")
    server.request("GET", f"/_cluster/health/{index}?wait_for_status=yellow&timeout=30s")


class Changes:
    """Updates, deletes and inserts all over the index, and what has to come of them.

    :param server: where.
    :param index: holds ``COUNT`` documents.
    """

    def __init__(self, server: ElasticsearchEndpoint, index: str) -> None:
        self._server = server
        self._index = index
        self._rounds = 0
        self.touched: set[str] = set()
        self.deleted: set[str] = set()
        self.last: dict[str, Any] = {}

    def make(self) -> None:
        """Change some documents of every part of the index, others each time."""
        self._rounds += 1
        updates = {
            f"id-{number}": {"n": number, "round": self._rounds} for number in range(self._rounds, COUNT, 17)
        }
        inserts = {f"new-{self._rounds}-{number}": {"n": number} for number in range(40)}
        gone = {f"id-{number}" for number in range(self._rounds + 7, COUNT, 34)} - updates.keys()
        lines = [json.dumps({"delete": {"_id": id_}}) for id_ in gone - self.deleted]
        self._server.request("POST", f"/{self._index}/_bulk", ("\n".join(lines) + "\n").encode())
        updates = {id_: document for id_, document in updates.items() if id_ not in self.deleted}
        put_all(self._server, self._index, {**updates, **inserts})
        self.deleted |= gone
        self.touched |= gone | updates.keys()
        self.last |= updates

    def check(self, records: list[Record]) -> None:
        """Compare what was read with what was there."""
        counts = Counter(record.id for record in records)
        bodies: dict[str, list[Any]] = defaultdict(list)
        for record in records:
            bodies[record.id].append(json.loads(bytes(record.body)))
        for number in range(COUNT):
            id_ = f"id-{number}"
            if id_ not in self.touched:
                assert counts[id_] == 1, f"{id_} was never touched and read {counts[id_]} times"
                assert bodies[id_] == [{"n": number}]
            elif id_ not in self.deleted:
                assert bodies[id_][-1] == self.last[id_], f"{id_} is not there in its last version"
                assert counts[id_] <= 3


@pytest.mark.fault("snapshot-lost", at="elasticsearch")
@pytest.mark.fault("changing-source", at="elasticsearch")
@pytest.mark.parametrize(
    ("shards", "lose"),
    [(1, "delete the point in time"), (7, "delete the point in time"), (1, "close and open the index")],
)
def test_nothing_is_lost_when_the_point_in_time_is(
    elasticsearch_server: ElasticsearchEndpoint, index: str, shards: int, lose: str
) -> None:
    """With changes all the while and snapshots lost again and again, what stayed is read exactly once."""
    server = elasticsearch_server
    make_index(server, index, shards=shards)
    put_all(server, index, {f"id-{number}": {"n": number} for number in range(COUNT)})
    changes = Changes(server, index)
    records: list[Record] = []
    broken_off = 0

    with opened(ElasticsearchSource(index=index), server.url) as source:

        def on_page(number: int) -> None:
            if number in {2, 8, 13}:
                changes.make()
                if lose == "close and open the index":
                    close_and_open(server, index)
                else:
                    drop_points_in_time(source, server)

        for partition in range(shards):
            reading = read_partition(source, partition, SMALL, on_page=on_page)
            records += reading.records
            broken_off += reading.broken_off
        snapshots = source.state["snapshots"]

    changes_after = {record.id for record in records if record.version is not None}
    assert broken_off > 0
    assert snapshots >= 2
    assert changes_after, "no record carries the version that tells its copies apart"
    if shards == 1:
        changes.check(records)
    else:
        # Shards that were read before a change hold what it changed in its old version, as any snapshot does.
        counts = Counter(record.id for record in records)
        untouched = {f"id-{number}" for number in range(COUNT)} - changes.touched
        assert {counts[id_] for id_ in untouched} == {1}
        assert all(counts[id_] for id_ in changes.touched - changes.deleted)


def test_a_new_leg_goes_on_after_the_last_window(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """A second process resumes from any window's end; changes in between appear in their last version."""
    server = elasticsearch_server
    make_index(server, index)
    put_all(server, index, {f"id-{number}": {"n": number} for number in range(COUNT)})
    changes = Changes(server, index)
    with opened(ElasticsearchSource(index=index), server.url) as first:
        pages = first.read(0, None, SMALL)
        before: list[Record] = []
        windows = 0
        for page in pages:
            before += page.records
            if page.window_end is not None:
                windows, cursor = windows + 1, page.window_end
                if windows == 3:
                    break
        state, fingerprints = first.state, first.fingerprints
    changes.make()

    with opened(ElasticsearchSource(index=index), server.url, state=state) as second:
        assert second.fingerprints == fingerprints
        after = read_partition(second, 0, SMALL, after=cursor)
        assert second.state["snapshots"] == 2

    changes.check(before + after.records)
    assert all(record.version is None for record in before)
    assert all(record.version is not None for record in after.records)
    assert after.cursors[-1]["end"] is True


def test_nothing_comes_after_the_end(elasticsearch_server: ElasticsearchEndpoint, index: str) -> None:
    """Resuming after a shard's last cursor reads nothing, even when documents have come since."""
    make_index(elasticsearch_server, index)
    put_all(elasticsearch_server, index, {"1": {"n": 1}})
    with opened(ElasticsearchSource(index=index), elasticsearch_server.url) as source:
        end = read_partition(source, 0).cursors[-1]
        put_all(elasticsearch_server, index, {"2": {"n": 2}})
        assert list(source.read(0, end, SMALL)) == []


def test_documents_that_are_not_refreshed_yet_are_read(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """What was acknowledged before is in the export, also where the index never refreshes by itself."""
    make_index(elasticsearch_server, index, refresh_interval="-1")
    elasticsearch_server.request("PUT", f"/{index}/_doc/1", {"n": 1})

    with opened(ElasticsearchSource(index=index), elasticsearch_server.url) as source:
        elasticsearch_server.request("PUT", f"/{index}/_doc/2", {"n": 2})
        assert [record.id for record in read_partition(source, 0).records] == ["1", "2"]


@pytest.mark.fault("source-gone", at="elasticsearch")
@pytest.mark.parametrize("made_anew", [False, True])
def test_an_index_that_is_deleted_while_it_is_read_ends_the_run(
    elasticsearch_server: ElasticsearchEndpoint, index: str, made_anew: bool
) -> None:
    """Neither an index that is gone nor another one under its name is read on as if nothing had happened."""
    server = elasticsearch_server
    make_index(server, index)
    put_all(server, index, {str(number): {"n": number} for number in range(300)})

    def on_page(number: int) -> None:
        if number == 2:
            server.request("DELETE", f"/{index}")
            if made_anew:
                make_index(server, index)
                put_all(server, index, {"1": {"n": 1}})

    with opened(ElasticsearchSource(index=index), server.url) as source:
        fingerprint = source.fingerprints["source"]
        with pytest.raises(PermanentError, match=r"deleted while it was read|made anew"):
            read_partition(source, 0, SMALL, on_page=on_page)

    if made_anew:
        with opened(ElasticsearchSource(index=index), server.url) as source:
            assert source.fingerprints["source"] != fingerprint


@pytest.mark.fault("snapshot-lost", at="elasticsearch")
@pytest.mark.fault("refused", at="elasticsearch")
def test_nothing_is_lost_when_the_node_is_killed(
    new_elasticsearch_server: Callable[..., ElasticsearchServer],
) -> None:
    """A node that is killed and started again within a window loses the snapshot, and no document."""
    server = new_elasticsearch_server()
    make_index(server, "orders")
    put_all(server, "orders", {f"id-{number}": {"n": number} for number in range(COUNT)})
    changes = Changes(server, "orders")

    def on_page(number: int) -> None:
        if number == 6:
            changes.make()
            server.restart(in_order=False)

    with opened(ElasticsearchSource(index="orders"), server.url) as source:
        reading = read_partition(source, 0, SMALL, on_page=on_page)
        assert source.state["snapshots"] == 2

    changes.check(reading.records)
    assert reading.broken_off >= 1
