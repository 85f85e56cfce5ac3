"""What must hold on the doubles after any trouble: the output is the source, record by record."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from airflow_batchkit.engine.exceptions import StoppedError, TransientError

if TYPE_CHECKING:
    from airflow_batchkit.engine.job import Job
    from tests.support.legs import World

MOST_LEGS = 60


def run_through(world: World, job: Job | None = None, **settings: Any) -> int:
    """Run leg after leg as Airflow would: it comes back after a stop, and tries again after a failure.

    :returns: how many legs it took.
    :raises PermanentError: what a leg ended with that nobody tries again.
    """
    for leg in range(1, MOST_LEGS + 1):
        try:
            world.run(job, **settings)
        except (StoppedError, TransientError):
            continue
        return leg
    raise AssertionError(f"not complete after {MOST_LEGS} legs")


def check_whole(world: World, *, given_up: Collection[str] = ()) -> None:
    """Compare source and output, id and body, and what else a run leaves.

    :param given_up: ids of the records that must be dead letters instead.
    """
    records = [record for _, partition in sorted(world.source.partitions.items()) for record in partition]
    published, stood = world.target.published, world.stood
    assert published is not None
    assert [(record.id, bytes(record.body)) for record in published.records] == [
        (record.id, bytes(record.body)) for record in records if record.id not in given_up
    ]
    assert sorted((letter.id, bytes(letter.record)) for letter in world.box.settled) == sorted(
        (record.id, bytes(record.body)) for record in records if record.id in given_up
    )
    assert stood.status == "completed"
    assert stood.counts.difference() is None
    assert stood.counts.read == len(records)
    assert stood.counts.written == published.counts["written"] == len(records) - len(given_up)
    assert stood.counts.dead_lettered == len(given_up)
    assert len(world.target.history) == 1, "published more than once"
    assert world.target.staged == {}
    assert world.box.staged == {}
    assert world.target.owner is None
