"""How many partitions are open at a time."""

from __future__ import annotations

import pytest

from airflow_batchkit.engine.checkpoint import decode
from airflow_batchkit.engine.policies import BatchPolicy
from airflow_batchkit.testing.doubles import made_up_records
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
