"""Reading in an order of the user's own, and where sequence numbers cannot be used."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.connectors.elasticsearch.source import ElasticsearchSource
from airflow_batchkit.engine.exceptions import OrderError, PermanentError, UsageError
from airflow_batchkit.engine.types import Total
from tests.support.elasticsearch_reading import SMALL, make_index, opened, put_all, read_partition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_batchkit.connectors.elasticsearch.open_source import OpenElasticsearchSource
    from tests.support.elasticsearch import ElasticsearchEndpoint

pytestmark = pytest.mark.elasticsearch

JSON = (("Content-Type", "application/json"),)
COUNT = 400


@pytest.fixture
def index(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give the name of an index of the test's own, which the test makes."""
    name = f"sort-{secrets.token_hex(4)}"
    yield name
    elasticsearch_server.request("DELETE", f"/{name}?ignore_unavailable=true")


def make_typed_index(server: ElasticsearchEndpoint, index: str, **settings: Any) -> None:
    """Make an index of one shard with a field of each type that a sort may hold, and fill it."""
    kinds = ("long", "keyword", "date", "date_nanos", "double", "boolean", "ip")
    body = {
        "settings": {"number_of_shards": 1, "number_of_replicas": 0, **settings},
        "mappings": {"properties": {kind: {"type": kind} for kind in kinds}},
    }
    server.request("PUT", f"/{index}", body)
    put_all(server, index, {f"id-{number}": _typed(number) for number in range(COUNT)})


def _typed(number: int) -> dict[str, Any]:
    """Return a document in which some fields are missing, equal or extreme."""
    document = {
        "long": 2**63 - 1 - number,
        "keyword": f"ключ-{number % 7}",
        "date": f"2026-01-{1 + number % 28:02d}T00:00:00.{number % 1000:03d}Z",
        "date_nanos": f"2026-01-01T00:00:00.123{number:06d}Z",
        "double": number / 3,
        "boolean": bool(number % 2),
        "ip": f"10.0.{number // 256}.{number % 256}",
    }
    missing = list(document)[number % 9 : number % 9 + 1]
    return {name: value for name, value in document.items() if name not in missing or name == "date_nanos"}


def drop_points_in_time(source: OpenElasticsearchSource, server: ElasticsearchEndpoint) -> None:
    """Take the open points in time away behind the source's back."""
    for point_in_time in source._points_in_time._open:
        server.request("DELETE", "/_pit", {"id": point_in_time.id})


@pytest.mark.parametrize(
    "sort",
    [
        ["date_nanos"],
        ["date_nanos:desc"],
        ["keyword", "date_nanos"],
        [{"keyword": {"order": "desc", "missing": "_first"}}, "date_nanos:desc"],
        ["boolean", {"double": "desc"}, "date_nanos"],
        ["ip", "date_nanos"],
        ["date:desc", {"long": {"missing": "_first"}}, "date_nanos"],
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("lost", [False, True], ids=["", "lost"])
def test_each_document_once_in_the_order_asked_for(
    elasticsearch_server: ElasticsearchEndpoint, index: str, sort: list[Any], lost: bool
) -> None:
    """Ties, missing values, both directions; also when the point in time is lost after every third page."""
    make_typed_index(elasticsearch_server, index)
    keys = [
        {key.partition(":")[0]: key.partition(":")[2] or "asc"} if isinstance(key, str) else key
        for key in sort
    ]
    body = {"size": COUNT, "sort": keys}
    expected = [
        hit["_id"] for hit in elasticsearch_server.request("POST", f"/{index}/_search", body)["hits"]["hits"]
    ]
    with opened(ElasticsearchSource(index=index, sort=sort), elasticsearch_server.url) as source:

        def drop(number: int) -> None:
            if lost and number % 3 == 0:
                drop_points_in_time(source, elasticsearch_server)

        reading = read_partition(source, 0, SMALL, on_page=drop)
        assert [record.id for record in reading.records] == expected
        assert len(expected) == COUNT
        assert reading.broken_off == 0, "a lost point in time is replaced between two pages"
        assert (source.state["snapshots"] > 1) is lost


def test_a_new_leg_goes_on_after_any_record(elasticsearch_server: ElasticsearchEndpoint, index: str) -> None:
    """The cursor after each single record, as it comes back from a checkpoint, leads to exactly the rest."""
    make_typed_index(elasticsearch_server, index)
    source = ElasticsearchSource(index=index, sort=["keyword", "date_nanos"])
    with opened(source, elasticsearch_server.url) as first:
        pages = list(first.read(0, None, SMALL))
        ids = [record.id for page in pages for record in page.records]
        cursors = [
            json.loads(json.dumps(page.cursor_at(number)))
            for page in pages
            if page.cursor_at is not None
            for number in range(len(page.records))
        ]
    assert len(cursors) == COUNT
    with opened(source, elasticsearch_server.url) as second:
        for number in (0, 1, 57, 398, 399):
            rest = read_partition(second, 0, SMALL, after=cursors[number]).records
            assert [record.id for record in rest] == ids[number + 1 :]


def test_documents_that_share_all_keys_are_refused(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """Two with equal keys could be one too few after an interruption: refused, naming both, in any page."""
    make_index(elasticsearch_server, index)
    put_all(elasticsearch_server, index, {str(n): {"n": n // 2 if n in {30, 31} else n} for n in range(60)})
    put_all(elasticsearch_server, index, {"twin": {"n": 29}})
    with (
        opened(ElasticsearchSource(index=index, sort=["n"]), elasticsearch_server.url) as source,
        pytest.raises(OrderError, match=r"documents '\w+' and '\w+' share all keys of the sort"),
    ):
        read_partition(source, 0, SMALL)


def test_a_twin_beyond_a_lost_point_in_time_is_refused(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """The last record before the loss and the first after it share their keys: that is noticed too."""
    make_index(elasticsearch_server, index)
    documents = {f"{n:02d}": {"n": n} for n in range(30)}
    put_all(elasticsearch_server, index, {**documents, "twin": {"n": 29}, "last": {"n": 40}})
    source = ElasticsearchSource(index=index, sort=["n"])
    with opened(source, elasticsearch_server.url) as first:
        page = next(iter(first.read(0, None, SMALL)))
        assert len(page.records) == 30
        assert page.cursor_at is not None
        cursor = page.cursor_at(29)
    with (
        opened(source, elasticsearch_server.url) as second,
        pytest.raises(OrderError, match="share all keys of the sort"),
    ):
        read_partition(second, 0, SMALL, after=cursor)


def test_keys_too_long_for_a_checkpoint_are_refused(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """A key that would burst the checkpoint is refused with the document's id."""
    make_typed_index(elasticsearch_server, index)
    put_all(elasticsearch_server, index, {"long": {"keyword": "x" * 1000, "long": 1}})
    source = ElasticsearchSource(index=index, sort=["keyword", "long"], query={"ids": {"values": ["long"]}})
    with (
        opened(source, elasticsearch_server.url) as found,
        pytest.raises(PermanentError, match="'long' take"),
    ):
        read_partition(found, 0, SMALL)


@pytest.mark.parametrize(
    ("sort", "message"),
    [
        (["_score"], "sort by _score"),
        (["_shard_doc"], "sort by _shard_doc"),
        (["at", "_seq_no"], "leave sort out"),
        ("at", "give a list"),
        ([{"at": "asc", "n": "asc"}], "sort key"),
        ([""], "sort key"),
    ],
)
def test_an_order_that_cannot_be_kept_is_refused(sort: Any, message: str) -> None:
    """Orders that end with a point in time, or change with an update, are refused at once."""
    with pytest.raises(UsageError, match=message):
        ElasticsearchSource(index="orders", sort=sort).check()


@pytest.mark.parametrize("field", ["nowhere", "note"])
def test_a_field_that_cannot_be_sorted_is_refused(
    elasticsearch_server: ElasticsearchEndpoint, index: str, field: str
) -> None:
    """The server's own reason comes through: no mapping, or a text field."""
    body = {"mappings": {"properties": {"note": {"type": "text"}}}, "settings": {"number_of_replicas": 0}}
    elasticsearch_server.request("PUT", f"/{index}", body)
    put_all(elasticsearch_server, index, {"1": {"note": "x"}})
    with (
        opened(ElasticsearchSource(index=index, sort=[field]), elasticsearch_server.url) as source,
        pytest.raises(UsageError, match=field),
    ):
        read_partition(source, 0, SMALL)


def test_an_index_without_sequence_numbers(
    elasticsearch_server: ElasticsearchEndpoint, index: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is one window, which is said together with what helps; a sort makes it resumable."""
    make_typed_index(elasticsearch_server, index, **{"index.disable_sequence_numbers": True})
    with opened(ElasticsearchSource(index=index), elasticsearch_server.url) as source:
        reading = read_partition(source, 0, SMALL)
        assert len(reading.cursors) == 1
    assert {record.id for record in reading.records} == {f"id-{n}" for n in range(COUNT)}
    assert len(reading.records) == COUNT
    assert "no sequence numbers" in caplog.text
    assert "a sort that ends in a unique field avoids that" in caplog.text
    sorted_source = ElasticsearchSource(index=index, sort=["date_nanos"])
    with opened(sorted_source, elasticsearch_server.url) as source:
        reading = read_partition(
            source, 0, SMALL, on_page=lambda _: drop_points_in_time(source, elasticsearch_server)
        )
    assert [record.id for record in reading.records] == [f"id-{n}" for n in range(COUNT)]
    assert len(reading.cursors) > 10


@pytest.mark.parametrize("numbers", [True, False], ids=["numbers", "no-numbers"])
@pytest.mark.parametrize("mode", ["logsdb", "time_series"])
def test_logs_and_time_series(
    elasticsearch_server: ElasticsearchEndpoint, index: str, mode: str, numbers: bool
) -> None:
    """Both modes, with and without sequence numbers; a time series without them is read in its own order."""
    settings = {"index.mode": mode, "number_of_replicas": 0}
    if mode == "time_series":
        bounds = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-12-31T00:00:00Z"}
        settings |= {
            "index.routing_path": ["host"],
            **{f"index.time_series.{k}": v for k, v in bounds.items()},
        }
    if not numbers:
        settings["index.disable_sequence_numbers"] = True
    properties = {
        "@timestamp": {"type": "date"},
        "host": {"type": "keyword", **({"time_series_dimension": True} if mode == "time_series" else {})},
        "load": {"type": "double"},
    }
    body = {"settings": settings, "mappings": {"properties": properties}}
    elasticsearch_server.request("PUT", f"/{index}", body)
    documents = [
        {"@timestamp": f"2026-06-01T00:{n % 60:02d}:00.000Z", "host": f"host-{n // 60}", "load": n + 0.5}
        for n in range(COUNT)
    ]
    lines = "".join(f'{{"create":{{}}}}\n{json.dumps(document)}\n' for document in documents)
    answer = elasticsearch_server.request("POST", f"/{index}/_bulk?refresh=true", lines.encode())
    assert not answer["errors"]
    with opened(ElasticsearchSource(index=index), elasticsearch_server.url) as source:
        reading = read_partition(
            source,
            0,
            SMALL,
            on_page=lambda n: drop_points_in_time(source, elasticsearch_server) if n == 2 else None,
        )
        assert source.total == Total(records=COUNT)
    assert sorted(json.loads(bytes(record.body))["load"] for record in reading.records) == [
        n + 0.5 for n in range(COUNT)
    ]
    resumable = numbers or mode == "time_series"
    assert (len(reading.cursors) > 1) is resumable
