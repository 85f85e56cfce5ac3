"""Which partitions are open, and whose pages count."""

from __future__ import annotations

import pytest

from airflow_batchkit.engine.checkpoint import Frontier, decode
from airflow_batchkit.engine.lanes import Lanes
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry
from airflow_batchkit.engine.reading import Arrival
from airflow_batchkit.testing.doubles import FakeClock, made_up_records
from tests.support.legs import HurryingClock, World


@pytest.mark.parametrize("readers", [1, 2])
def test_no_more_partitions_are_open_than_readers(readers: int) -> None:
    """The source is asked for so many at a time, and the checkpoint holds so many cursors, never one more."""
    world = World(
        {f"p{number}": made_up_records(20, prefix=f"{number}-") for number in range(5)},
        clock=HurryingClock(),
        readers=readers,
    )
    world.run(world.job(batch=BatchPolicy(max_records=2)))
    opened = [len(decode(stored).frontier.open) for _, stored in world.store.history]

    assert max(opened) == readers
    assert len(world.ids) == 100


class Counting:
    """Begins to read nothing; numbers the readers."""

    def __init__(self) -> None:
        self._readers = 0

    def begin(self, partition: int, after: object) -> int:
        """Give the next number."""
        del partition, after
        self._readers += 1
        return self._readers


def test_what_comes_late_is_for_nobody() -> None:
    """A page of a reader that was given up, or of a partition that is finished, is passed over."""
    lanes = Lanes(
        ("a",),
        Counting(),  # type: ignore[arg-type]  # all that lanes ask of it
        Frontier(),
        readers=1,
        retry=BatchRetry(),
        max_wait_in_slot=60,
        clock=FakeClock(),
    )
    lane = lanes.of(Arrival(1, 0))
    assert lane is not None
    assert lanes.of(Arrival(2, 0)) is None
    lane.end()
    assert list(lanes.commit()) == [[]]
    assert lanes.of(Arrival(1, 0)) is None
