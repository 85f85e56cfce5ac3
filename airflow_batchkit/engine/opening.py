"""Opens everything a leg needs and decides where it begins: the steps before the loop."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_batchkit.engine.checkpoint import Checkpoint
from airflow_batchkit.engine.exceptions import CannotResumeError
from airflow_batchkit.engine.local import LocalSink
from airflow_batchkit.engine.resumption import (
    Decision,
    compare_fingerprints,
    generation_of,
    part_fingerprints,
)
from airflow_batchkit.engine.sink import Inherited, Leg, OpenSink
from airflow_batchkit.engine.source import OpenContext, OpenSource
from airflow_batchkit.engine.transform import transform_fingerprint

if TYPE_CHECKING:
    from airflow_batchkit.engine.clock import Clock
    from airflow_batchkit.engine.connections import Connections
    from airflow_batchkit.engine.dead_letters import OpenDeadLetters
    from airflow_batchkit.engine.job import Job, RunIdentity


@dataclass(slots=True)
class Opened:
    """What a leg works with.

    :param source: the opened source.
    :param sink: the opened sink; in LOCAL mode its stand-in.
    :param dead_letters: the opened place, None where there is none (or in LOCAL mode).
    """

    source: OpenSource
    sink: OpenSink
    dead_letters: OpenDeadLetters | None

    @property
    def fingerprints(self) -> dict[str, str]:
        """Those of source and sink together."""
        return {**self.source.fingerprints, **self.sink.fingerprints}

    def note_state(self, checkpoint: Checkpoint) -> None:
        """Put into the checkpoint what source and sink want back in the next leg."""
        checkpoint.source = dict(self.source.state)
        checkpoint.sink = dict(self.sink.state)

    def close(self) -> None:
        """Close all three; none of them raises."""
        self.source.close()
        self.sink.close()
        if self.dead_letters is not None:
            self.dead_letters.close()


def open_all(
    job: Job, *, connections: Connections, started_at: float, stored: Checkpoint | None, log: logging.Logger
) -> Opened:
    """Open source, sink and dead letters, in this order, and close what is open when one fails.

    :param started_at: the run's one instant, in seconds since the epoch.
    :param stored: the checkpoint that is resumed, None when the run begins.
    """

    def context(state: Mapping[str, Any]) -> OpenContext:
        return OpenContext(
            connections=connections,
            timeouts=job.timeouts,
            now=datetime.fromtimestamp(started_at, tz=UTC),
            state=state,
            start_at=job.start_at,
            job=job.name,
            log=log,
        )

    source = job.source.open(context(stored.source if stored else {}))
    try:
        if job.local:
            return Opened(source, LocalSink(job.sink, log), None)
        sink = job.sink.open(context(stored.sink if stored else {}))
    except BaseException:
        source.close()
        raise
    try:
        letters = None if job.dead_letters is None else job.dead_letters.open(context({}))
    except BaseException:
        source.close()
        sink.close()
        raise
    return Opened(source, sink, letters)


def next_checkpoint(
    job: Job,
    identity: RunIdentity,
    opened: Opened,
    *,
    decision: Decision,
    stored: Checkpoint | None,
    clock: Clock,
    started_at: float,
) -> tuple[Checkpoint, Leg]:
    """Make the checkpoint with which this leg claims the run, and the leg itself.

    :raises CannotResumeError: what must not change has changed since the checkpoint.
    """
    fingerprints = {
        **opened.fingerprints,
        "transform": transform_fingerprint(job.transform),
        **part_fingerprints(job.start_at),
    }
    token = secrets.token_hex(8)
    inherited = None
    former_job = ""
    if decision.action == "resume" and stored is not None:
        compare_fingerprints(stored.fingerprints, fingerprints)
        if stored.frontier.next > len(opened.source.partitions):
            raise CannotResumeError(
                "the source has fewer partitions than when the run began; restart the run"
            )
        inherited = Inherited(token=stored.token, frontier=stored.frontier)
        checkpoint = stored
        checkpoint.legs += 1
        if stored.job != job.name:
            former_job, checkpoint.job = stored.job, job.name
        if stored.run != identity.run:
            checkpoint.alias = identity.run
        checkpoint.frontier = stored.frontier.for_new_leg()
        if decision.new_budget_period:
            checkpoint.begin_budget_period()
            checkpoint.stuck_legs = 0
            checkpoint.legs = 1  # whoever clears a run gives it all its legs again
    else:
        checkpoint = Checkpoint(
            job=job.name,
            run=identity.run,
            alias="" if identity.nameless else None,
            mode=job.mode,
            token=token,
            generation=generation_of(identity.run, identity.clear_marker, fingerprints),
            started_at=started_at,
            fingerprints=fingerprints,
        )
    checkpoint.token = token
    checkpoint.clear_marker = identity.clear_marker
    checkpoint.status = "running"
    checkpoint.saved_at = clock.time()
    leg = Leg(
        job=job.name,
        run=checkpoint.run,
        token=token,
        generation=checkpoint.generation,
        mode=checkpoint.mode,
        partitions=tuple(opened.source.partitions),
        inherited=inherited,
        origin=identity.origin,
        holder=identity.holder,
        former_job=former_job,
    )
    return checkpoint, leg
