"""The memory sink fails and refuses as told, and notices an engine that breaks its promises."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.engine.checkpoint import Frontier
from airflow_batchkit.engine.exceptions import PermanentError, TransientError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.sink import BatchKey, Leg, Publication
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.testing.doubles import MemorySink, MemoryTarget, NoConnections, made_up_records

if TYPE_CHECKING:
    from airflow_batchkit.engine.types import Record, WriteResult
    from airflow_batchkit.testing.doubles.sink import OpenMemorySink

LEG = Leg(job="j", run="r", token="1" * 16, generation="0a0a0a0a", mode="real", partitions=("a",))


def opened(target: MemoryTarget) -> OpenMemorySink:
    """Open a sink and start a leg."""
    sink = MemorySink(target=target).open(
        OpenContext(connections=NoConnections(), timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC))
    )
    sink.start(LEG)
    return sink


def write(sink: OpenMemorySink, records: list[Record]) -> WriteResult:
    """Write batch 1."""
    writer = sink.begin(BatchKey(partition=0, number=1))
    writer.add(records)
    return writer.write()


def test_failed_write_leaves_nothing() -> None:
    """A write that fails before it has done anything stages nothing; the next try does."""
    target = MemoryTarget()
    target.script.fail("write", TransientError("down"))
    sink = opened(target)
    with pytest.raises(TransientError, match="down"):
        write(sink, made_up_records(2))
    assert target.staged == {}
    assert write(sink, made_up_records(2)).written == 2


def test_told_ids_are_rejected() -> None:
    """Records that the target refuses are rejected one by one, and not staged."""
    target = MemoryTarget(rejects={"2"})
    result = write(opened(target), made_up_records(3))
    assert (result.written, [rejection.record.id for rejection in result.rejected]) == (2, ["2"])
    assert [record.id for record in target.staged[LEG.token, BatchKey(partition=0, number=1)]] == ["1", "3"]


def test_one_key_for_different_records_is_noticed() -> None:
    """An engine that gives two batches one number would lose the first: the double does not let it pass."""
    sink = opened(MemoryTarget())
    write(sink, made_up_records(2))
    with pytest.raises(PermanentError, match="written twice with different records"):
        write(sink, made_up_records(2, first=5))


def test_publish_killed_between_its_steps_can_be_repeated() -> None:
    """After a kill behind the switch, publishing again keeps the output and cleans up."""
    target = MemoryTarget()
    target.script.fail("clean", TransientError("killed"))
    sink = opened(target)
    write(sink, made_up_records(2))
    publication = Publication(
        frontier=Frontier(1), counts={}, fingerprints={}, notes={}, stop_asked=lambda: None
    )
    with pytest.raises(TransientError, match="killed"):
        sink.publish(publication)
    sink.publish(publication)
    sink.publish(publication)
    assert target.staged == {}
    assert [published.ids for published in target.history] == [["1", "2"]]
    assert target.records() == [{"id": 1, "text": ""}, {"id": 2, "text": ""}]
