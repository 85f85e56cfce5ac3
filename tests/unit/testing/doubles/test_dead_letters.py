"""The memory dead letters keep what counts, by the same rule as the sink."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow_batchkit.engine.checkpoint import Frontier, PartitionProgress
from airflow_batchkit.engine.dead_letters import DeadLetter, envelope
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.sink import BatchKey, Inherited, Leg, Publication
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.engine.types import Rejection
from airflow_batchkit.testing.doubles import LetterBox, MemoryDeadLetters, NoConnections, made_up_records

COMMITTED = Frontier(1, (PartitionProgress(0, {"position": 1}, 1),))
FINISHED = Publication(frontier=Frontier(1), counts={}, fingerprints={}, notes={}, stop_asked=lambda: None)


def leg(token: str, inherited: Inherited | None = None) -> Leg:
    """Make a leg of a run with one partition."""
    return Leg(
        job="j",
        run="r",
        token=token,
        generation="0a0a0a0a",
        mode="real",
        partitions=("a",),
        inherited=inherited,
    )


def letter(number: int, of: Leg, key: BatchKey) -> DeadLetter:
    """Make the dead letter of one record."""
    (record,) = made_up_records(1, first=number)
    rejection = Rejection(
        record=record, stage="sink", error_class="record", error_type="Rejected", message="no"
    )
    return envelope(rejection, leg=of, key=key, at=0.0)


def test_only_letters_behind_the_line_are_settled() -> None:
    """Letters of a killed leg beyond its last save were put again by the next leg: they count once."""
    box = LetterBox()
    context = OpenContext(
        connections=NoConnections(), timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC)
    )
    first = leg("1" * 16)
    second = leg("2" * 16, Inherited(token=first.token, frontier=COMMITTED))
    for each, letters in ((first, {1: 10, 2: 20}), (second, {1: 20, 2: 30})):
        place = MemoryDeadLetters(box=box).open(context)
        place.start(each)
        for number, identity in letters.items():
            key = BatchKey(partition=0, number=number)
            place.put(key, [letter(identity, each, key)])
    assert place.settle(FINISHED) == {"place": "memory", "count": 3}
    assert place.settle(FINISHED) == {"place": "memory", "count": 3}
    assert [settled.id for settled in box.settled] == ["10", "20", "30"]
    assert box.staged == {}
    place.close()


def test_next_run_begins_with_none() -> None:
    """A run without dead letters leaves none, also where an earlier run had some."""
    box = LetterBox()
    context = OpenContext(
        connections=NoConnections(), timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC)
    )
    for token, numbers in (("1" * 16, [7]), ("2" * 16, [])):
        place = MemoryDeadLetters(box=box).open(context)
        place.start(leg(token))
        for number in numbers:
            key = BatchKey(partition=0, number=1)
            place.put(key, [letter(number, leg(token), key)])
        place.settle(FINISHED)
    assert box.settled == []
