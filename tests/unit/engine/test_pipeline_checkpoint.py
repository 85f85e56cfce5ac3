"""What a leg makes of the checkpoint that it finds, and of a store that does not answer."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import (
    CannotResumeError,
    RecordError,
    StoppedError,
    TransientError,
)
from airflow_batchkit.engine.job import RunIdentity
from airflow_batchkit.engine.policies import BatchRetry
from airflow_batchkit.testing.doubles import FakeClock, MemorySource, made_up_records
from tests.support.legs import KEY, HurryingClock, Recorder, World, at

ONCE = BatchRetry(max_tries=1)


def odd_fails(document: dict[str, Any]) -> dict[str, Any]:
    """Give up every other record."""
    if document["id"] % 2:
        raise RecordError("odd")
    return document


def test_restart_begins_anew_also_over_a_damaged_checkpoint() -> None:
    """Whatever is there is not read; without --restart the damage is named."""
    world = World()
    world.store.values[KEY] = "{damaged"
    recorder = Recorder()

    with pytest.raises(CannotResumeError, match="damaged"):
        world.run(listeners=[recorder])
    assert [type(error) for error in recorder.named("failure")] == [CannotResumeError]
    assert world.run(identity=at("", restart=True)).counts["read"] == 45


@pytest.mark.fault("checkpoint-unfit", at="engine")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("source", "query"),
        ("transform", "transform"),
        ("both", "query, transform"),
    ],
)
def test_a_changed_job_is_refused_by_name(change: str, named: str) -> None:
    """What differs is named, and how to begin anew; nothing is claimed, read or written."""
    world = World(batch_retry=ONCE)
    world.target.script.fail("write", TransientError("503"), times=9)
    with pytest.raises(StoppedError):
        world.run()
    stored, owner = world.store.values[KEY], world.target.owner
    changed: dict[str, Any] = {}
    if change in {"source", "both"}:
        changed["source"] = MemorySource(
            partitions=world.source.partitions,
            fingerprints={"source": "memory", "query": "other", "sort": "position"},
        )
    if change in {"transform", "both"}:
        changed["transform"] = odd_fails

    with pytest.raises(CannotResumeError, match=rf"changed since the checkpoint: {named}; .*restart"):
        world.run(world.job(**changed))

    assert world.store.values[KEY] == stored
    assert world.target.owner == owner


def test_a_source_with_fewer_partitions_is_refused() -> None:
    """A cursor's partition numbers mean something else then."""
    world = World(
        {f"p{number}": made_up_records(9, prefix=f"{number}-") for number in range(4)},
        batch_retry=ONCE,
        readers=4,
        clock=HurryingClock(),
    )
    world.target.script.fail("write", TransientError("503"), at=3)
    with pytest.raises(StoppedError):
        world.run()
    assert world.stood.frontier.next == 4

    with pytest.raises(CannotResumeError, match="fewer partitions"):
        world.run(world.job(source=MemorySource(partitions={"p0": made_up_records(9)})))


@pytest.mark.fault("checkpoint-unfit", at="engine")
def test_a_checkpoint_that_is_too_old_is_refused() -> None:
    """Eight days after the last save the run does not go on by itself."""
    clock = FakeClock()
    world = World(batch_retry=ONCE, clock=clock)
    world.target.script.fail("write", TransientError("503"), times=9)
    with pytest.raises(StoppedError):
        world.run()
    clock.advance(8 * 86_400)

    with pytest.raises(CannotResumeError, match="8 days old, at most 7"):
        world.run()


def test_a_store_that_fails_for_a_while_is_waited_for() -> None:
    """Loads and saves are tried again, and the listeners hear of it; no leg is lost."""
    world = World(clock=HurryingClock())
    world.store.script.fail("load", TransientError("503"), at=1, times=2)
    world.store.script.fail("save", TransientError("503"), at=2, times=3, when="after")
    recorder = Recorder()

    assert world.run(listeners=[recorder]).legs == 1
    assert {what for what, _, _ in recorder.named("retry")} == {
        "load of the checkpoint",
        "save of the checkpoint",
    }


@pytest.mark.fault("store-away", at="engine")
def test_a_store_that_stays_away_ends_the_leg_before_more_is_done() -> None:
    """Never run on without checkpoints: what is durable already is saved by the next leg that can."""
    world = World(clock=HurryingClock(), sink={"idempotent": False})
    world.store.script.fail("save", TransientError("503"), at=2, times=99)

    with pytest.raises(StoppedError, match="503"):
        world.run()

    assert world.target.script.calls("write") == 1
    assert world.stood.counts.read == 0


def test_little_is_in_flight_while_the_store_is_away() -> None:
    """A sink that may be ahead of the checkpoint is ahead by a few batches only; the next leg goes on."""
    world = World({"a": made_up_records(1_000)}, clock=HurryingClock())
    world.store.script.fail("save", TransientError("503"), at=2, times=4)

    with pytest.raises(StoppedError, match="503"):
        world.run()
    assert world.target.script.calls("write") <= 12

    assert world.run_to_end().legs == 2
    assert world.ids == [record.id for record in made_up_records(1_000)]


def test_a_run_that_a_copy_began_goes_on_under_another_name() -> None:
    """The run keeps its staging and its first name; the job and the second name are those of who went on."""
    world = World(clock=HurryingClock(), batch_retry=ONCE)
    world.target.script.fail("write", TransientError("503"), at=3)
    with pytest.raises(StoppedError):
        world.run(world.job(name="copy a b"), identity=RunIdentity(run="20260101-7", nameless=True))
    assert world.stood.alias == ""

    mine = RunIdentity(run="daily-1", clear_marker="1", when_cleared="restart")
    report = world.run(identity=mine)
    assert report.legs == 2
    assert world.ids == [record.id for record in made_up_records(45)]
    assert (world.stood.job, world.stood.run, world.stood.alias) == ("job", "20260101-7", "daily-1")

    assert world.run(identity=mine) == report
    assert world.run(identity=RunIdentity(run="daily-2", clear_marker="1")).run == "daily-2"


def test_a_run_that_a_copy_began_for_other_work_is_refused() -> None:
    """Only the same work goes on; the refusal names what differs."""
    world = World(clock=HurryingClock(), batch_retry=ONCE)
    world.target.script.fail("write", TransientError("503"), at=3)
    with pytest.raises(StoppedError):
        world.run(identity=RunIdentity(run="20260101-7", nameless=True))
    with pytest.raises(CannotResumeError, match="changed since the checkpoint: transform"):
        world.run(world.job(transform=dict), identity=RunIdentity(run="daily-1"))
