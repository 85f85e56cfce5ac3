"""Search answers are sliced into records."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_batchkit.connectors.elasticsearch.pages import Hit, check_order, decode_page, decode_positions
from airflow_batchkit.engine.exceptions import OrderError, PermanentError, TransientError
from airflow_batchkit.engine.types import Record


def answer(*hits: bytes, timed_out: bool = False, failed: int = 0, total: int | None = None) -> bytes:
    """Return a search answer as the server writes it."""
    counted = b"" if total is None else b'"total":{"value":%d,"relation":"eq"},' % total
    shards = json.dumps({"total": 1, "successful": 1, "skipped": 0, "failed": failed}).encode()
    return b'{"pit_id":"p","took":1,"timed_out":%b,"_shards":%b,"hits":{%b"max_score":null,"hits":[%b]}}' % (
        json.dumps(timed_out).encode(),
        shards,
        counted,
        b",".join(hits),
    )


HIT = b'{"_index":"orders","_id":"1","_score":null,"_source":{"n": 1.0},"sort":[7]}'


def test_half_a_surrogate_pair_does_not_spoil_the_page() -> None:
    """Bodies with lone surrogate escapes, which msgspec refuses, and their neighbours are sliced exactly."""
    bodies = [
        b"{}",
        b'{"s":"\\ud83d","_source":{}}',
        b'{"s":"\\\\ud83d \\uDE00"}',
        b"{}",
        b'{"s":"\\ud83d\\ude00"}',
    ]
    hits = [
        b'{"_id":"%d","_source":%b%b,"sort":[%d]}' % (number, b" " * number, body, number)
        for number, body in enumerate(bodies)
    ]

    page = decode_page(answer(*hits), with_index=False, about="x")

    assert [bytes(record.body) for record in page.hits.hits] == bodies


def test_a_hit_is_a_record() -> None:
    """The body is the slice between the braces, byte for byte, and nothing has to be converted."""
    page = decode_page(answer(HIT, total=9), with_index=False, about="x")
    (record,) = page.hits.hits
    assert isinstance(record, Record)
    assert (record.id, bytes(record.body), record.routing, record.index, record.version) == (
        "1",
        b'{"n": 1.0}',
        None,
        None,
        None,
    )
    assert page.pit_id == "p"
    assert page.hits.total is not None
    assert page.hits.total.value == 9


def test_routing_version_and_index_are_taken_where_they_are_asked_for() -> None:
    """The index is set for sources of several indices only."""
    hit = HIT.replace(b'"_score"', b'"_routing":"r","_version":3,"_score"')
    for with_index, index in ((False, None), (True, "orders")):
        (record,) = decode_page(answer(hit), with_index=with_index, about="x").hits.hits
        assert (record.routing, record.version, record.index) == ("r", 3, index)


def test_an_empty_page_without_hits_is_empty() -> None:
    """A server may leave the list of hits out."""
    raw = answer().replace(b',"hits":[]', b"")
    assert decode_page(raw, with_index=False, about="x").hits.hits == []


@pytest.mark.parametrize(
    "raw", [answer(timed_out=True), answer(failed=1), answer(HIT)[:-20], answer(HIT)[:100], b""]
)
def test_a_part_of_an_answer_is_never_used(raw: bytes) -> None:
    """What timed out, lacks a shard or is cut off is asked for again."""
    with pytest.raises(TransientError):
        decode_page(raw, with_index=False, about="x")


def test_documents_without_source_end_the_run() -> None:
    """The message says that the mapping keeps no documents."""
    with pytest.raises(PermanentError, match="without _source"):
        decode_page(answer(b'{"_id":"1","sort":[1]}'), with_index=False, about="x")


def test_an_answer_of_another_form_ends_the_run() -> None:
    """What is no search answer is not guessed at."""
    with pytest.raises(PermanentError, match="unexpected form"):
        decode_page(b'{"took":1}', with_index=False, about="x")


def test_a_document_that_is_nested_too_deeply_ends_the_run_in_one_line() -> None:
    """Such a document is named as the trouble instead of a stack overflow."""
    deep = HIT.replace(b'{"n": 1.0}', b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
    with pytest.raises(PermanentError, match="nested too deeply"):
        decode_page(answer(deep), with_index=False, about="x")


def test_positions_come_without_documents() -> None:
    """A search that only asks where something is needs no body."""
    (position,) = decode_positions(answer(b'{"_id":"1","sort":[41,7]}'), about="x").hits.hits
    assert position.sort == (41, 7)


def hits(*positions: int) -> list[Any]:
    """Return hits at these positions of a shard."""
    return [Hit(id="x", body=b"{}", sort=(position,)) for position in positions]  # type: ignore[arg-type] # no Raw needed


def test_positions_that_grow_pass() -> None:
    """The last position is what the next page goes on from."""
    assert check_order(hits(1, 2, 9), 0, about="x") == 9
    assert check_order([], 5, about="x") == 5


@pytest.mark.parametrize(("positions", "last"), [((1, 1), -1), ((2, 1), -1), ((3, 4), 3), ((0,), 0)])
def test_positions_that_do_not_grow_end_the_run(positions: tuple[int, ...], last: int) -> None:
    """A position that comes twice, or goes back, within a page or from one to the next, is noticed."""
    with pytest.raises(OrderError, match="cannot be trusted"):
        check_order(hits(*positions), last, about="x")
