"""A Python function as a sink: each record handed over once, under a key that never changes."""

from __future__ import annotations

import dataclasses
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest

from airflow_batchkit.connectors.callable import CallableSink, OpenCallableSink, idempotency_key
from airflow_batchkit.engine.exceptions import PushbackError, RecordError, TransientError, UsageError
from airflow_batchkit.engine.policies import BatchPolicy, Timeouts
from airflow_batchkit.engine.sink import BatchKey, Leg
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.engine.types import Record
from airflow_batchkit.testing.doubles import NoConnections, made_up_records
from tests.support.legs import World

if TYPE_CHECKING:
    from collections.abc import Callable

LEG = Leg(
    job="billing", run="2026-01", token="1" * 16, generation="0a0a0a0a", mode="real", partitions=("all",)
)


def opened(
    function: Callable[..., object], per: Literal["record", "batch"] = "record", leg: Leg = LEG
) -> OpenCallableSink:
    """Open the sink for a leg."""
    context = OpenContext(
        connections=NoConnections(), timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC)
    )
    sink = CallableSink(function=function, per=per).open(context)
    sink.start(leg)
    return sink


class Bank:
    """Notes each call; fails as often as it is told, refuses some ids."""

    def __init__(
        self, *, refuses: frozenset[int] = frozenset(), failures: int = 0, fails_at: int = 0
    ) -> None:
        self.calls: list[tuple[int, ...]] = []
        self.keys: dict[int, str] = {}
        self._refuses = refuses
        self._failures = failures
        self._fails_at = fails_at

    def one(self, document: dict[str, Any], *, idempotency_key: str) -> None:
        self.many([document], idempotency_keys=[idempotency_key])

    def many(self, documents: list[dict[str, Any]], *, idempotency_keys: list[str]) -> None:
        ids = tuple(document["id"] for document in documents)
        if self._failures and self._fails_at in ids:
            self._failures -= 1
            raise PushbackError("the bank is busy", 1.0)
        if self._refuses & set(ids):
            raise RecordError(f"no account among {len(ids)}")
        self.calls.append(ids)
        self.keys.update(zip(ids, idempotency_keys, strict=True))


def test_each_record_is_one_call_in_order() -> None:
    """With per="record" the function gets one decoded record at a time, in the source's order."""
    bank = Bank()
    writer = opened(bank.one).begin(BatchKey(partition=0, number=1))
    writer.add(made_up_records(2))
    writer.add(made_up_records(1, first=3))
    result = writer.write()
    assert bank.calls == [(1,), (2,), (3,)]
    assert (result.written, result.rejected) == (3, [])


def test_batch_is_one_call() -> None:
    """With per="batch" the function gets the whole batch, with a key for each record."""
    bank = Bank()
    writer = opened(bank.many, "batch").begin(BatchKey(partition=0, number=1))
    writer.add(made_up_records(3))
    assert writer.write().written == 3
    assert bank.calls == [(1, 2, 3)]
    assert len(set(bank.keys.values())) == 3


@pytest.mark.parametrize("per", ["record", "batch"])
def test_refused_records_are_alone_rejected(per: Literal["record", "batch"]) -> None:
    """A RecordError gives up the bad records only; each good one is handed over exactly once."""
    bank = Bank(refuses=frozenset({3, 8}))
    writer = opened(bank.one if per == "record" else bank.many, per).begin(BatchKey(partition=0, number=1))
    writer.add(made_up_records(10))
    result = writer.write()
    assert sorted(identity for call in bank.calls for identity in call) == [1, 2, 4, 5, 6, 7, 9, 10]
    assert [rejection.record.id for rejection in result.rejected] == ["3", "8"]
    assert result.written == 8
    assert {rejection.error_type for rejection in result.rejected} == {"RecordError"}
    assert "in many" in result.rejected[0].stack_trace


@pytest.mark.parametrize("per", ["record", "batch"])
def test_failed_write_goes_on_where_it_failed(per: Literal["record", "batch"]) -> None:
    """After a transient error the next try begins with the call that failed, and counts each record once."""
    bank = Bank(refuses=frozenset({2}), failures=2, fails_at=4)
    writer = opened(bank.one if per == "record" else bank.many, per).begin(BatchKey(partition=0, number=1))
    writer.add(made_up_records(5))
    for _ in range(2):
        with pytest.raises(PushbackError, match="busy"):
            writer.write()
    result = writer.write()
    assert sorted(identity for call in bank.calls for identity in call) == [1, 3, 4, 5]
    assert (result.written, [rejection.record.id for rejection in result.rejected]) == (4, ["2"])


def test_other_errors_come_through() -> None:
    """A bug in the function fails the run: it is not taken for a bad record."""

    def broken(document: dict[str, Any], *, idempotency_key: str) -> None:
        del idempotency_key
        raise KeyError(document["id"])

    writer = opened(broken).begin(BatchKey(partition=0, number=1))
    writer.add(made_up_records(1))
    with pytest.raises(KeyError):
        writer.write()


def test_key_is_the_same_in_each_leg_of_a_run() -> None:
    """Retry, resume and clear hand a record over under the same key: token and generation are not in it."""
    record = made_up_records(1)[0]
    key = idempotency_key(LEG, record)
    later = dataclasses.replace(LEG, token="2" * 16, generation="0b0b0b0b")
    assert idempotency_key(later, record) == key
    assert idempotency_key(LEG, msgspec.structs.replace(record, body=b'{"id":1,"new":true}')) == key
    assert len(key) == 64


def test_key_differs_where_the_record_does() -> None:
    """Another job, run, index, routing or id is another key, however the texts are cut."""
    record = Record("b", b"{}")
    keys = {
        idempotency_key(leg, other)
        for leg, other in [
            (LEG, record),
            (dataclasses.replace(LEG, run="2026-02"), record),
            (dataclasses.replace(LEG, job="billing2", run="026-01"), record),
            (LEG, Record("a", b"{}")),
            (LEG, Record("b", b"{}", routing="x")),
            (LEG, Record("b", b"{}", index="x")),
        ]
    }
    assert len(keys) == 6


def test_closed_sink_makes_no_further_call() -> None:
    """A hung write that wakes up after the close hands nothing over any more."""
    bank = Bank()
    sink = opened(bank.one)
    writer = sink.begin(BatchKey(partition=0, number=1))
    writer.add(made_up_records(2))
    sink.close()
    with pytest.raises(TransientError, match="closed"):
        writer.write()
    assert bank.calls == []


def test_start_says_that_nothing_guards_the_target(caplog: pytest.LogCaptureFixture) -> None:
    """The log says once per leg that two runs at once are not kept apart."""
    with caplog.at_level(logging.INFO, logger="airflow_batchkit"):
        opened(Bank().one)
    assert "do not let two runs of billing call it at once" in caplog.text


def test_engine_is_told_to_save_after_each_batch() -> None:
    """The sink is not idempotent and keeps the order, with batches small enough to be done twice."""
    sink = CallableSink(function=Bank().one)
    assert (sink.idempotent, sink.one_write_per_partition, sink.default_batch_records) == (False, True, 100)


@pytest.mark.parametrize("settings", [{"function": "print"}, {"function": print, "per": "page"}])
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    """What is no function, or an unknown way to call it, is refused when the DAG is written."""
    with pytest.raises(UsageError, match="CallableSink"):
        CallableSink(**settings)


class RateLimited:
    """An API that takes some records at once, and refuses every so many calls.

    :param at_once: records of one call.
    :param every: each call with a number divisible by it is refused.
    """

    def __init__(self, *, at_once: int, every: int) -> None:
        self.taken: list[int] = []
        self.calls = 0
        self._at_once = at_once
        self._every = every

    def many(self, documents: list[dict[str, Any]], *, idempotency_keys: list[str]) -> None:
        assert len(idempotency_keys) == len(documents)
        self.calls += 1
        if len(documents) > self._at_once or self.calls % self._every == 0:
            raise PushbackError("429", 0.001)
        self.taken += [document["id"] for document in documents]

    def one(self, document: dict[str, Any], *, idempotency_key: str) -> None:
        self.many([document], idempotency_keys=[idempotency_key])


@pytest.mark.parametrize(
    ("per", "at_once", "every"), [("record", 1, 5), ("batch", 20, 1000), ("batch", 30, 4), ("batch", 100, 2)]
)
def test_api_with_a_rate_limit_gets_everything_once(
    per: Literal["record", "batch"], at_once: int, every: int
) -> None:
    """Far more refusals than tries: as long as something gets done between them, one leg does it all."""
    api = RateLimited(at_once=at_once, every=every)
    world = World({"a": made_up_records(200)}, batch=BatchPolicy(max_records=100))
    sink = CallableSink(function=api.one if per == "record" else api.many, per=per)
    report = world.run(world.job(sink=sink))
    assert api.taken == list(range(1, 201))
    assert (report.legs, report.counts["written"]) == (1, 200)
