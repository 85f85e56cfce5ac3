"""What a page passes through on its way, made anew for each leg."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from airflow_batchkit.engine.batching import Limits
from airflow_batchkit.engine.opening import Opened
from airflow_batchkit.engine.reading import READ_AHEAD_BYTES, ReadAhead
from airflow_batchkit.engine.sink import Leg
from airflow_batchkit.engine.surroundings import Surroundings
from airflow_batchkit.engine.throttle import Throttle
from airflow_batchkit.engine.transform import TransformStage
from airflow_batchkit.engine.types import Sizing
from airflow_batchkit.engine.writing import Writers

WRITES_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """The stages, in order, and the limits by which batches are cut between them."""

    reading: ReadAhead
    throttle: Throttle
    limits: Limits
    transform: TransformStage
    writers: Writers

    @classmethod
    def of(cls, around: Surroundings, opened: Opened, leg: Leg) -> Stages:
        """Make the stages of one leg; threads begin to wait for work."""
        job = around.job
        limits = Limits.of(job.batch, job.sink)
        throttle = Throttle(job.throttle, around.clock)
        changed = threading.Condition()
        return cls(
            reading=ReadAhead(
                opened.source,
                _sizing(limits, throttle),
                changed=changed,
                # Pages of one second each: what is read ahead strains the source as much as what is used.
                max_bytes=READ_AHEAD_BYTES if job.throttle is None else 0,
            ),
            throttle=throttle,
            limits=limits,
            transform=TransformStage(job.transform),
            writers=Writers(
                WRITES_IN_FLIGHT if job.sink.idempotent else 1,
                one_per_partition=job.sink.one_write_per_partition,
                leg=leg,
                dead_letters=opened.dead_letters,
                retrying=around.retrying_in_thread(job.timeouts.batch),
                changed=changed,
            ),
        )

    def stop(self) -> None:
        """Let the threads end after what they do now."""
        self.reading.stop()
        self.writers.stop()


def _sizing(limits: Limits, throttle: Throttle) -> Sizing:
    wishes = Sizing(batch_records=limits.max_records, batch_bytes=limits.max_bytes)
    return Sizing(
        batch_records=wishes.batch_records,
        batch_bytes=wishes.batch_bytes,
        page_records=min(wishes.page_records, throttle.page_records or wishes.page_records),
        page_bytes=min(wishes.page_bytes, limits.max_bytes, throttle.page_bytes or wishes.page_bytes),
    )
