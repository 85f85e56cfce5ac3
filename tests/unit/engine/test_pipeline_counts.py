"""Rules 3 and 6: both ends add up or the run fails and says by how much; finished is a state of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from typing_extensions import override

from airflow_batchkit.engine.exceptions import ErrorBudgetExceededError, ReconciliationError, StoppedError
from airflow_batchkit.engine.policies import ErrorBudget
from airflow_batchkit.engine.sink import BatchKey
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.engine.types import Record, UnreadableRecord, WriteResult
from airflow_batchkit.testing.doubles import (
    LetterBox,
    MemoryDeadLetters,
    MemorySink,
    MemorySource,
    made_up_records,
)
from airflow_batchkit.testing.doubles.dead_letters import _OpenMemoryDeadLetters
from airflow_batchkit.testing.doubles.sink import MemoryWriter, OpenMemorySink
from tests.support.legs import KEY, RUN, World, at


class ForgetfulWriter(MemoryWriter):
    @override
    def write(self) -> WriteResult:
        result = super().write()
        result.written -= 2
        return result


class OpenForgetfulSink(OpenMemorySink):
    @override
    def begin(self, key: BatchKey) -> MemoryWriter:
        return ForgetfulWriter(self, key) if key.number == 2 else super().begin(key)


class ForgetfulSink(MemorySink):
    """Says of its second batch that it wrote two records fewer than it was given."""

    @override
    def open(self, context: OpenContext) -> OpenMemorySink:
        return OpenForgetfulSink(self.target, context)


class OpenLeakyLetters(_OpenMemoryDeadLetters):
    @override
    def settle(self, publication: Any) -> Mapping[str, Any]:
        return {**super().settle(publication), "count": 3}


class LeakyLetters(MemoryDeadLetters):
    """Finds only three dead letters in the end."""

    @override
    def open(self, context: OpenContext) -> OpenLeakyLetters:
        return OpenLeakyLetters(self.box)


def test_rule_3_a_difference_fails_the_run_and_is_named() -> None:
    """Two records that the sink forgot: nothing is published, and the message says where and how many."""
    world = World()
    job = world.job(sink=ForgetfulSink(target=world.target))

    with pytest.raises(
        ReconciliationError, match=r"produced 45 records, but written 43 .* \(difference \+2\)"
    ):
        world.run(job)

    assert world.target.published is None
    assert world.target.staged, "the parts stay, so that someone can look"
    assert world.stood.status == "failed"


def test_rule_3_dead_letters_that_are_missing_in_the_end_fail_the_run() -> None:
    """Five were counted, three are kept: nothing is published."""
    world = World(error_budget=ErrorBudget(max_dead_letters=10))
    world.target.rejects = {"1", "2", "3", "4", "5"}
    box = LetterBox()

    with pytest.raises(
        ReconciliationError, match="5 records were dead-lettered, but 3 dead letters are kept"
    ):
        world.run(world.job(dead_letters=LeakyLetters(box=box)))

    assert world.target.published is None


def some_unreadable(count: int, *, every: int = 9) -> list[Record]:
    """Make records, each ninth of which its source cannot read."""
    return [
        UnreadableRecord(record.id, b'{"readable":{},"unreadable":{}}', message="field 'text' holds NaN")
        if number % every == 0
        else record
        for number, record in enumerate(made_up_records(count), start=1)
    ]


def test_rule_3_fan_out_filter_and_rejections_reconcile() -> None:
    """A transform that makes several records of one, none, or fails; a sink that rejects: all add up."""

    def spread(document: dict[str, Any]) -> list[dict[str, Any]] | None:
        if document["id"] % 10 == 0:
            raise ValueError("no")
        return None if document["id"] % 3 == 0 else [document] * (document["id"] % 4)

    world = World(transform=spread, error_budget=ErrorBudget(max_dead_letters=45))
    world.target.rejects = {"7-1", "7-3", "11-2"}

    counts = world.run(world.job(dead_letters=world.letters)).counts

    assert counts["read"] == 45 == counts["transformed"] + counts["filtered"] + 4
    assert counts["dead_lettered_by_transform"] == 4
    assert counts["dead_lettered_by_sink"] == 3
    assert counts["produced"] == counts["written"] + 3
    assert counts["written"] == len(world.ids)
    assert {letter.id for letter in world.box.settled} >= {"10", "20", "7-1", "11-2"}


@pytest.mark.parametrize("transform", [None, dict])
def test_rule_3_records_that_cannot_be_read_reconcile(transform: Callable[..., Any] | None) -> None:
    """They count as dead-lettered by the source, and are kept as letters of that stage."""
    world = World(
        {"a": some_unreadable(45)}, transform=transform, error_budget=ErrorBudget(max_dead_letters=5)
    )
    counts = world.run(world.job(dead_letters=world.letters)).counts

    assert (counts["read"], counts["dead_lettered_by_source"], counts["dead_lettered"]) == (45, 5, 5)
    assert counts["transformed"] == counts["produced"] == counts["written"] == 40
    assert [letter.id for letter in world.box.settled] == ["9", "18", "27", "36", "45"]
    assert {letter.stage for letter in world.box.settled} == {"source"}
    assert not {letter.id for letter in world.box.settled} & set(world.ids)


def test_a_batch_of_unreadable_records_alone_commits() -> None:
    """Nothing is written of it, its letters are kept, and the cursor moves on."""
    world = World({"a": some_unreadable(30, every=1)}, error_budget=ErrorBudget(max_dead_letters=30))
    report = world.run(world.job(dead_letters=world.letters))

    assert report.counts["dead_lettered_by_source"] == len(world.box.settled) == 30
    assert world.ids == []


def test_an_unreadable_record_without_a_place_fails_the_run() -> None:
    """Nothing would keep it: the message names the record and what is wrong with it."""
    world = World({"a": some_unreadable(45)})
    with pytest.raises(ErrorBudgetExceededError, match=r"record '9' of a .*field 'text' holds NaN"):
        world.run()
    assert world.target.published is None


def test_local_mode_reconciles_with_unreadable_records() -> None:
    """They are counted, not kept: LOCAL mode writes nothing."""
    world = World({"a": some_unreadable(45)})
    counts = world.run(world.job(local=True)).counts

    assert (counts["read"], counts["dead_lettered_by_source"], counts["skipped"]) == (45, 5, 40)


def test_rule_3_counts_given_to_the_publication_are_those_of_the_report() -> None:
    """The manifest and the report say the same."""
    world = World()
    report = world.run()

    assert world.target.published is not None
    assert world.target.published.counts == report.counts


def test_rule_6_an_empty_source_completes() -> None:
    """No records: the run publishes an empty output and is complete; it is not 'at the beginning'."""
    world = World({"a": [], "b": []})
    report = world.run()

    assert report.status == world.stood.status == "completed"
    assert world.target.published is not None
    assert world.ids == []
    assert report.counts["batches"] == 0


def test_rule_6_a_source_without_partitions_completes() -> None:
    """Nothing to read at all is a finished run too, although its cursor never moved."""
    world = World()
    report = world.run(world.job(source=MemorySource(partitions={})))

    assert report.status == world.stood.status == "completed"
    assert world.stood.frontier.next == 0


def test_rule_6_a_completed_run_does_nothing_again() -> None:
    """The retry of a run that completed before Airflow heard of it gets the stored report, nothing else."""
    world = World()
    first = world.run()
    saves = len(world.store.history)

    second = world.run()

    assert second == first
    assert len(world.log.opened) == 1
    assert len(world.store.history) == saves
    assert len(world.target.history) == 1


def test_rule_6_everything_read_is_not_completed() -> None:
    """A leg that ends between the last window and the publication leaves the run unfinished."""
    world = World()
    world.target.script.fail("publish", StoppedError("deploy"))

    with pytest.raises(StoppedError):
        world.run()

    assert world.stood.status == "running"
    assert world.stood.counts.read == 45
    assert world.target.published is None
    world.run()
    assert len(world.ids) == 45
    assert world.log.reads == [("a", None)], "the second leg has nothing left to read"


def test_rule_6_a_clear_after_success_begins_anew_and_replaces_the_output() -> None:
    """Another clear marker: all is read again under another generation, and nothing is added twice."""
    world = World()
    first = world.run(identity=at("1"))
    second = world.run(identity=at("2"))

    assert first.generation != second.generation
    assert world.ids == [record.id for record in made_up_records(45)]
    assert world.stood.legs == 1


def test_another_run_under_the_same_key_begins_anew() -> None:
    """A checkpoint of yesterday's run does not make today's run skip anything."""
    world = World()
    world.run()
    report = world.run(identity=type(RUN)(run="run-2"))

    assert report.run == "run-2"
    assert report.counts["read"] == 45
    checkpoint = world.store.checkpoint(KEY)
    assert checkpoint is not None
    assert checkpoint.run == "run-2"
