"""Requests and answers that break on their way to a real Elasticsearch and a real S3 API, one kind at a time.

In the run of all tests each kind strikes one request of an export, drawn by a fixed seed; ``make faults``
strikes every request in turn.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors import patience
from airflow_batchkit.connectors.elasticsearch import search
from tests.support.fault_table import FULL
from tests.support.faulty_export import (
    Export,
    Side,
    Strike,
    Struck,
    describe,
    documents,
    prepare_index,
    strike,
    strike_some,
)
from tests.support.http_faults import Fault, Status

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.s3 import S3Server

pytestmark = [pytest.mark.elasticsearch, pytest.mark.s3]

DOCUMENTS = documents(60)
JSON, XML = (("Content-Type", "application/json"),), (("Content-Type", "application/xml"),)
REJECTED = b'{"error":{"type":"es_rejected_execution_exception","reason":"queue full"}}'
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
FAILED = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
IN_WORDS = b'{"error":{"type":"io_exception","reason":"no route"}}'
TIMED_OUT = b'{"pit_id":"x","timed_out":true,"_shards":{"total":1,"failed":0},"hits":{"hits":[]}}'
LACKING = b'{"pit_id":"x","timed_out":false,"_shards":{"total":1,"failed":1},"hits":{"hits":[]}}'
FEWEST: Mapping[Side, int] = {"elasticsearch": 20, "s3": 40}  # requests that every export makes
WAITS = ("0.1", "Mon, 01 Jan 2001 00:00:00 GMT", "soon")

MARKS: Mapping[Side, Mapping[str, pytest.MarkDecorator]] = {
    "elasticsearch": {
        "refused": pytest.mark.fault("refused", at="elasticsearch"),
        "cut": pytest.mark.fault("cut", at="elasticsearch"),
        "answer-lost": pytest.mark.fault("answer-lost", at="elasticsearch"),
        "slow": pytest.mark.fault("slow", at="elasticsearch"),
        "swapped": pytest.mark.fault("swapped", at="elasticsearch"),
        "server-error": pytest.mark.fault("server-error", at="elasticsearch"),
        "pushback": pytest.mark.fault("pushback", at="elasticsearch"),
    },
    "s3": {
        "refused": pytest.mark.fault("refused", at="s3"),
        "cut": pytest.mark.fault("cut", at="s3"),
        "answer-lost": pytest.mark.fault("answer-lost", at="s3"),
        "slow": pytest.mark.fault("slow", at="s3"),
        "swapped": pytest.mark.fault("swapped", at="s3"),
        "server-error": pytest.mark.fault("server-error", at="s3"),
        "pushback": pytest.mark.fault("pushback", at="s3"),
    },
}
ON_THE_WAY: Mapping[str, tuple[tuple[Fault, ...], ...]] = {
    "refused": (("away",),),
    "cut": (
        ("reset", "reset"),
        ("reset in the head",),
        ("truncate",),
        ("truncate in chunks",),
        ("truncate without length",),
    ),
    "answer-lost": (
        ("apply and reset", "apply and reset"),
        ("apply and hang",),
        ("twice",),
        ("twice, first",),
    ),
    "slow": (("hang",), ("trickle",)),
    "swapped": (("swap",), ("previous",)),
}


def _statuses(side: Side) -> Iterator[tuple[str, tuple[Fault, ...]]]:
    """Bursts of three answers: as the server writes them, as a proxy's page, and empty."""
    said, pushing, kind = (IN_WORDS, REJECTED, JSON) if side == "elasticsearch" else (FAILED, SLOW_DOWN, XML)
    for code in (500, 502, 503, 504) if FULL else (500, 503):
        yield "server-error", (Status(code, said, kind), Status(code), Status(code, b"", ()))
    code = 429 if side == "elasticsearch" else 503
    yield "pushback", tuple(Status(code, pushing, (*kind, ("Retry-After", wait))) for wait in WAITS)


def _cases() -> Iterator[ParameterSet]:
    for side, marks in MARKS.items():
        on_the_way = ((name, faults) for name, several in ON_THE_WAY.items() for faults in several)
        for name, faults in (*on_the_way, *_statuses(side)):
            kind = faults[0].code if isinstance(faults[0], Status) else faults[0]
            yield pytest.param(side, faults, id=f"{side}-{kind}", marks=marks[name])


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the connectors' own pauses short: how long they are is tested where they are made."""
    monkeypatch.setattr(search, "PAUSES", (0.02, 0.05))
    monkeypatch.setattr(patience, "_FIRST_WAIT", 0.02)


@pytest.fixture(scope="module")
def index(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give an index of 60 documents in two shards."""
    name = prepare_index(elasticsearch_server, DOCUMENTS)
    yield name
    elasticsearch_server.request("DELETE", f"/{name}")


@pytest.fixture
def new_export(
    elasticsearch_server: ElasticsearchEndpoint, index: str, s3_server: S3Server, bucket: str
) -> Callable[[], Export]:
    """Give what makes exports of the index, each into a folder of its own."""
    return lambda: Export(elasticsearch_server, index, DOCUMENTS, s3_server, bucket)


def numbers(side: Side, *, seed: str) -> Iterable[int]:
    """Return which of an export's requests to break: one after the other, or one that the seed draws."""
    return itertools.count(1) if FULL else [random.Random(seed).randint(1, FEWEST[side])]


def strikes(side: Side, what: Strike) -> dict[str, Strike]:
    """Return the arguments for breaking one side."""
    return {"elasticsearch": what} if side == "elasticsearch" else {"s3": what}


def insist(export: Export, struck: Struck) -> None:
    """Insist that the run completed, and that its output is exact."""
    assert struck.error is None, f"{describe(struck)}: {struck.error!r}"
    try:
        export.insist_exact()
    except AssertionError as error:
        error.add_note(describe(struck))
        raise


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(("side", "faults"), list(_cases()))
def test_broken_requests_cost_nothing_but_time(
    new_export: Callable[[], Export], side: Side, faults: tuple[Fault, ...]
) -> None:
    """Whatever becomes of a request: each document comes once, byte for byte, and nothing is left over."""
    for number in numbers(side, seed=f"{side} {faults[0]}"):
        export = new_export()
        struck = export.run_struck(**strikes(side, strike(number, *faults)))
        insist(export, struck)
        if not struck.struck:
            assert number > FEWEST[side]
            return


@pytest.mark.fault("cut", at="elasticsearch")
@pytest.mark.fault("answer-lost", at="s3")
@pytest.mark.parametrize("seed", range(40 if FULL else 2))
def test_any_request_may_break(new_export: Callable[[], Export], seed: int) -> None:
    """With many requests broken in many ways the output is exact, at the latest after a whole leg."""
    slow = {"hang", "apply and hang", "trickle"}
    kinds = [faults[0] for several in ON_THE_WAY.values() for faults in several if faults[0] not in slow]
    export = new_export()
    struck = export.run_struck(
        elasticsearch=strike_some(kinds, seed=f"elasticsearch {seed}", probability=0.1, most=8),
        s3=strike_some(kinds, seed=f"s3 {seed}", probability=0.1, most=8),
    )
    if struck.error is None:
        insist(export, struck)
    else:
        struck.insist_readable()
        export.finish()


@pytest.mark.fault("partial-answer", at="elasticsearch")
@pytest.mark.parametrize("body", [TIMED_OUT, LACKING], ids=["timed out", "a shard failed"])
def test_a_part_of_an_answer_is_asked_for_again(new_export: Callable[[], Export], body: bytes) -> None:
    """An answer with status 200 that says that something is missing is never taken for the data."""
    export = new_export()
    struck = export.run_struck(
        elasticsearch=lambda asked: (
            Status(200, body, JSON) if asked.resource == "/_search" and asked.number in {1, 4} else None
        )
    )
    assert len(struck.struck) == 2
    insist(export, struck)
