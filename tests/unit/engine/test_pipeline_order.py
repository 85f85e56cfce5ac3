"""Rule 8: several writes in flight never move the cursor past what is not durable."""

from __future__ import annotations

import threading

import pytest

from airflow_batchkit.engine.exceptions import StoppedError, TransientError
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.policies import BatchRetry
from airflow_batchkit.engine.stages import WRITES_IN_FLIGHT
from airflow_batchkit.engine.types import Record
from airflow_batchkit.testing.doubles import (
    made_up_records,
)
from tests.support.legs import HurryingClock, Recorder, World

ONCE = BatchRetry(max_tries=1)


def test_rule_8_the_cursor_follows_the_longest_finished_prefix() -> None:
    """A batch that is durable before an earlier one does not move the cursor past it."""
    world = World({"a": made_up_records(30)})
    slow = world.target.script.block("write", at=1)
    recorder = Recorder()
    leg = threading.Thread(target=lambda: world.run(listeners=[recorder]))
    leg.start()
    assert slow.wait_until_reached()
    for _ in range(500):
        if len(world.target.staged) == 2:
            break
        threading.Event().wait(0.01)
    durable, told = len(world.target.staged), list(recorder.named("progress"))
    slow.release()
    leg.join(10)

    assert durable == 2
    assert told == []
    assert world.ids == [str(number) for number in range(1, 31)]


def test_rule_8_a_stop_behind_a_slow_batch_keeps_only_the_prefix() -> None:
    """Batches 2 and 3 are durable, batch 1 is not: the next leg does all three again, and none is doubled."""
    world = World({"a": made_up_records(30)}, clock=HurryingClock(), batch_retry=ONCE)
    world.target.script.fail("write", TransientError("reset"), at=1)

    with pytest.raises(StoppedError):
        world.run()
    assert world.stood.counts.written == 0
    world.run()

    assert world.ids == [str(number) for number in range(1, 31)]


@pytest.mark.parametrize(("alone", "expected"), [(True, 1), (False, WRITES_IN_FLIGHT)])
def test_rule_8_one_write_per_partition_where_ids_may_repeat(*, alone: bool, expected: int) -> None:
    """With one_write_per_partition no two batches of a partition are in flight; without it several are."""
    lock = threading.Lock()
    inside: list[int] = [0]
    most: list[int] = [0]
    full = threading.Event()

    def watch(name: str, when: str) -> None:
        if name != "sink.put":
            return
        with lock:
            inside[0] += 1 if when == "before" else -1
            most[0] = max(most[0], inside[0])
        if when == "before":
            if inside[0] >= expected:
                full.set()
            full.wait(0.5)

    world = World({"a": made_up_records(60)}, sink={"one_write_per_partition": alone})
    with probing(watch):
        world.run()

    assert most == [expected]
    assert len(world.ids) == 60


def test_rule_8_partitions_are_written_side_by_side_and_published_in_order() -> None:
    """Several partitions, more than are read at once, come out complete and in their own order."""
    partitions: dict[str, list[Record]] = {
        f"p{number}": made_up_records(23, prefix=f"{number}-") for number in range(7)
    }
    world = World(partitions, clock=HurryingClock(), readers=3, sink={"one_write_per_partition": True})
    world.run()

    assert world.ids == [record.id for records in partitions.values() for record in records]
    assert world.stood.frontier.next == 7
    assert world.stood.active_seconds > 0
