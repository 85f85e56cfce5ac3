"""The Elasticsearch source delivers what a real server holds, byte for byte."""

from __future__ import annotations

import json
import logging
import secrets
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from airflow_batchkit.connectors.elasticsearch.source import ElasticsearchSource
from airflow_batchkit.engine.types import Sizing, Total
from tests.support.elasticsearch_reading import (
    LARGE,
    SMALL,
    make_index,
    opened,
    pages_of,
    put_all,
    read_all,
    read_partition,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.elasticsearch import ElasticsearchEndpoint

pytestmark = pytest.mark.elasticsearch

LITERALS = {
    "large integer": b'{"n":12345678901234567890}',
    "larger integer": b'{"x":123456789012345678901234567890123}',
    "float": b'{"x":1.0,"y":0.10,"z":-0.0,"e":1E+2}',
    "out of range": b'{"x":1e400,"y":-1e-400}',
    "escapes": b'{"s":"\\u00e9\\/\\"\\\\\\t \\ud83d\\ude00 \\u2028"}',
    "unicode": '{"s":"é 😀 \u2028 \x7f","日本":"語"}'.encode(),
    "key order": b'{"b":1,"a":2,"c":{"z":1,"y":[3,2,1]}}',
    "empty": b"{}",
    "pretty-printed": b'{\n  "a" : 1,\r\n  "b" : [ 1,\t2 ]\n}',
    "nested": b'{"a":' * 200 + b"{}" + b"}" * 200,
    "own _id": b'{"_id":"mine","_source":{"_id":1}}',
    "nulls": b'{"a":null,"b":[],"c":"","d":[null,{}]}',
}
ODD_IDS = ("../x", 'quo"ted', "a b", "é😀", "%2F", "line\nbreak", "<&>", "_x", "-", "x" * 512, "null", "{}")


@pytest.fixture
def index(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give the name of an index of the test's own, which the test makes."""
    name = f"source-{secrets.token_hex(4)}"
    yield name
    elasticsearch_server.request("DELETE", f"/{name}?ignore_unavailable=true")


def put(server: ElasticsearchEndpoint, index: str, id_: str, body: bytes, routing: str | None = None) -> None:
    """Index one document exactly as it is."""
    where = f"/{index}/_doc/{quote(id_, safe='')}" + (f"?routing={routing}" if routing else "")
    request = urllib.request.Request(  # noqa: S310 - the URL is the test server's own
        server.url + where, data=body, method="PUT", headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the URL is the test server's own
        assert answer.status in {200, 201}


def test_every_literal_survives(elasticsearch_server: ElasticsearchEndpoint, index: str) -> None:
    """Numbers, escapes, unicode, key order, white space inside: a body is byte for byte what was indexed."""
    server = elasticsearch_server
    server.request("PUT", f"/{index}", {"mappings": {"enabled": False}})
    for id_, body in LITERALS.items():
        put(server, index, id_, body)

    with opened(ElasticsearchSource(index=index), server.url) as source:
        read = {record.id: bytes(record.body) for record in read_all(source)}

    assert read == LITERALS


def test_white_space_around_a_document_is_no_part_of_it(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """A document that was indexed with white space before and after it is the same JSON object."""
    make_index(elasticsearch_server, index)
    put(elasticsearch_server, index, "1", b' \r\n\t {"a": 1}  \n')

    with opened(ElasticsearchSource(index=index), elasticsearch_server.url) as source:
        (record,) = read_all(source)

    assert bytes(record.body) == b'{"a": 1}'


def test_odd_ids_survive(elasticsearch_server: ElasticsearchEndpoint, index: str) -> None:
    """Ids with path parts, quotes, line breaks, or of the greatest length come out as they are."""
    make_index(elasticsearch_server, index)
    put_all(elasticsearch_server, index, {id_: {"n": 1} for id_ in ODD_IDS})

    with opened(ElasticsearchSource(index=index), elasticsearch_server.url) as source:
        records = read_all(source)

    assert sorted(record.id for record in records) == sorted(ODD_IDS)
    assert all(record.index is None and record.version is None for record in records)


def test_one_id_under_two_routings_is_two_records(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """Documents with one id in different shards are told apart by their routing."""
    server = elasticsearch_server
    make_index(server, index, shards=7)
    for routing in ("a", "b", "c", "d"):
        put(server, index, "same", b'{"n":1}', routing)
    server.request("POST", f"/{index}/_refresh")
    stored = server.request("GET", f"/{index}/_count")["count"]
    assert stored > 1

    with opened(ElasticsearchSource(index=index), server.url) as source:
        records = read_all(source)

    assert len({(record.id, record.routing) for record in records}) == stored == len(records)


@pytest.mark.parametrize("shards", [1, 7])
@pytest.mark.parametrize("count", [0, 1, 100, 500, 1234])
def test_any_number_of_documents_comes_exactly_once(
    elasticsearch_server: ElasticsearchEndpoint, index: str, shards: int, count: int
) -> None:
    """None, one, exact multiples of window and page: each document once, and the total is exact."""
    make_index(elasticsearch_server, index, shards=shards)
    documents = {f"id-{number}": {"n": number} for number in range(count)}
    if documents:
        put_all(elasticsearch_server, index, documents)

    with opened(ElasticsearchSource(index=index), elasticsearch_server.url) as source:
        small, large = read_all(source, SMALL), read_all(source, LARGE)
        assert source.total == Total(records=count)
        assert len(source.partitions) == shards
        assert source.state["snapshots"] == 1

    for records in (small, large):
        assert len(records) == count
        assert {record.id: json.loads(bytes(record.body)) for record in records} == documents


def test_a_window_holds_about_one_batch(elasticsearch_server: ElasticsearchEndpoint, index: str) -> None:
    """Windows never hold more than a batch where every sequence number is a document, and mostly hold one."""
    make_index(elasticsearch_server, index)
    put_all(elasticsearch_server, index, {str(number): {"n": number} for number in range(2000)})
    windows: list[int] = [0]
    with opened(ElasticsearchSource(index=index), elasticsearch_server.url) as source:
        for page in source.read(0, None, SMALL):
            assert len(page.records) <= SMALL.page_records
            windows[-1] += len(page.records)
            if page.window_end is not None:
                windows.append(0)

    assert sum(windows) == 2000
    assert max(windows) <= 100
    assert len(windows) < 30


def test_a_selective_query_jumps_over_what_it_does_not_match(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """Stretches without a match, at any place, cost no window each, and the dense ones stay bounded."""
    make_index(elasticsearch_server, index)
    wanted = {number for number in range(6000) if number in {5, 5990} or 3000 <= number < 3400}
    put_all(
        elasticsearch_server, index, ((str(number), {"n": int(number in wanted)}) for number in range(6000))
    )
    with opened(
        ElasticsearchSource(index=index, query={"term": {"n": 1}}), elasticsearch_server.url
    ) as source:
        reading = read_partition(source, 0, SMALL)

    assert {int(record.id) for record in reading.records} == wanted
    assert len(reading.records) == len(wanted)
    assert source.total == Total(records=len(wanted))
    assert len(reading.cursors) < 20


def test_several_indices_tell_their_records_apart(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """With two indices one id may come twice; each record names its index, and every shard is a partition."""
    other = f"{index}-b"
    make_index(elasticsearch_server, index, shards=2)
    make_index(elasticsearch_server, other)
    put_all(elasticsearch_server, index, {"1": {"n": 1}, "2": {"n": 2}})
    put_all(elasticsearch_server, other, {"1": {"n": 3}})
    try:
        with opened(ElasticsearchSource(index=[other, index]), elasticsearch_server.url) as source:
            records = read_all(source)
            assert list(source.partitions) == sorted([f"{index}.0", f"{index}.1", f"{other}.0"])
    finally:
        elasticsearch_server.request("DELETE", f"/{other}")

    assert sorted((record.index, record.id, bytes(record.body)) for record in records) == [
        (index, "1", b'{"n": 1}'),
        (index, "2", b'{"n": 2}'),
        (other, "1", b'{"n": 3}'),
    ]


@pytest.mark.fault("too-large", at="elasticsearch")
def test_huge_documents_between_small_ones_do_not_make_huge_pages(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """After thousands of small documents come some of 5 MB: pages shrink to them, and nothing is lost."""
    server = elasticsearch_server
    make_index(server, index)
    put_all(server, index, {f"small-{number}": {"n": number} for number in range(3000)})
    body = b'{"s":"' + b"x" * (5 * 1024 * 1024) + b'"}'
    for number in range(12):
        put(server, index, f"huge-{number}", body)
    put_all(server, index, {f"late-{number}": {"n": number} for number in range(100)})

    with opened(ElasticsearchSource(index=index), server.url) as source:
        pages = pages_of(source)

    ids = [record.id for page in pages for record in page.records]
    assert len(ids) == len(set(ids)) == 3112
    assert max(page.nbytes for page in pages) < 26 * 1024 * 1024
    assert all(bytes(record.body) == body for page in pages for record in page.records if record.id[0] == "h")


def test_pages_respect_the_index_limit(elasticsearch_server: ElasticsearchEndpoint, index: str) -> None:
    """A page never asks for more than the index's max_result_window."""
    make_index(elasticsearch_server, index, max_result_window=70)
    put_all(elasticsearch_server, index, {str(number): {"n": number} for number in range(500)})

    with opened(ElasticsearchSource(index=index), elasticsearch_server.url) as source:
        pages = pages_of(source)

    assert sum(len(page.records) for page in pages) == 500
    assert max(len(page.records) for page in pages) == 70


def test_now_in_a_query_is_the_start_of_the_run(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """Date math with now means the run's instant, whatever the field's own time format is."""
    server = elasticsearch_server
    server.request(
        "PUT",
        f"/{index}",
        {"mappings": {"properties": {"at": {"type": "date", "format": "yyyy-MM-dd HH:mm"}}}},
    )
    put_all(
        server,
        index,
        {
            "before": {"at": "2026-11-21 23:59"},
            "in": {"at": "2026-11-22 00:00"},
            "late": {"at": "2026-11-23 00:00"},
        },
    )
    query = {"range": {"at": {"gte": "now-1d/d", "lt": "now/d"}}}

    with opened(ElasticsearchSource(index=index, query=query), server.url) as source:
        assert [record.id for record in read_all(source)] == ["in"]
        assert source.total == Total(records=1)


def test_a_partial_run_starts_at_a_date_or_a_sequence_number(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """start_at limits what is read and what is counted, and belongs to the identity of the query."""
    make_index(elasticsearch_server, index)
    put_all(
        elasticsearch_server,
        index,
        {str(day): {"at": f"2026-11-{day:02d}T00:00:00Z"} for day in range(1, 21)},
    )
    source = ElasticsearchSource(index=index, date_field="at")
    seen = {}
    for start_at in (None, '{"seq_no": 14}', "2026-11-18T01:00:00+01:00"):
        with opened(source, elasticsearch_server.url, start_at=start_at) as partial:
            records = read_all(partial, Sizing(batch_records=4, batch_bytes=1024, page_records=3))
            assert partial.total == Total(records=len(records))
            assert partial.state["snapshots"] == 1
            seen[start_at] = ([int(record.id) for record in records], partial.fingerprints["query"])

    assert [ids for ids, _ in seen.values()] == [
        list(range(1, 21)),
        [16, 17, 18, 19, 20],
        [18, 19, 20],
    ]
    assert len({fingerprint for _, fingerprint in seen.values()}) == 3


def test_the_log_says_what_is_done_and_shows_no_document(
    elasticsearch_server: ElasticsearchEndpoint, index: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each request is a debug line with its duration; no content of a document is ever logged."""
    make_index(elasticsearch_server, index)
    put_all(elasticsearch_server, index, {"1": {"secret": "tomato"}})
    with (
        caplog.at_level(logging.DEBUG),
        opened(ElasticsearchSource(index=index), elasticsearch_server.url) as source,
    ):
        read_all(source)

    assert "POST /_search answered 200" in caplog.text
    assert f"looking up {index}" in caplog.text
    assert "tomato" not in caplog.text
