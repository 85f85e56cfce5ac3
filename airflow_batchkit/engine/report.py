"""What a run ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from airflow_batchkit.engine.checkpoint import Checkpoint, Counts
    from airflow_batchkit.engine.types import Total


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The final account, stored in the checkpoint and returned by the operator.

    :param job: what ran.
    :param run: which run of it.
    :param mode: ``real``, ``partial`` or ``local``.
    :param status: ``completed``; ``skipped`` for a LOCAL run, which writes nothing.
    :param generation: names the published output.
    :param counts: what became of the records.
    :param published: what the sink said of the output (location, manifest, parts, bytes).
    :param dead_letters: where given-up records are, and how many.
    :param source: what the source wants known of its reading (snapshots).
    :param started_at: seconds since the epoch.
    :param finished_at: seconds since the epoch.
    :param active_seconds: all legs together.
    :param legs: how many there were since the run began, or was cleared last.
    """

    job: str
    run: str
    mode: str
    status: str
    generation: str
    counts: Mapping[str, int]
    published: Mapping[str, Any]
    dead_letters: Mapping[str, Any]
    source: Mapping[str, Any]
    started_at: float
    finished_at: float
    active_seconds: float
    legs: int

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Report:
        """Read back what :meth:`to_dict` made."""
        return cls(**{name: stored[name] for name in cls.__slots__})


def count_dict(counts: Counts) -> dict[str, int]:
    """Return counts as a plain mapping, with the sum of the dead letters."""
    return {**msgspec.structs.asdict(counts), "dead_lettered": counts.dead_lettered}


def make_report(
    checkpoint: Checkpoint,
    *,
    job: str,
    status: str,
    published: Mapping[str, Any],
    dead_letters: Mapping[str, Any],
    finished_at: float,
) -> Report:
    """Put the final report together."""
    return Report(
        job=job,
        run=checkpoint.run,
        mode=checkpoint.mode,
        status=status,
        generation=checkpoint.generation,
        counts=count_dict(checkpoint.counts),
        published=published,
        dead_letters=dead_letters,
        source=checkpoint.source,
        started_at=checkpoint.started_at,
        finished_at=finished_at,
        active_seconds=round(checkpoint.active_seconds, 3),
        legs=checkpoint.legs,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do, without doing it.

    :param decision: whether it would begin or resume, in words.
    :param settings: the job.
    :param source: facts of the opened source.
    :param sink: facts of the opened sink.
    :param partitions: how many parts are read independently.
    :param total: what the source expects to deliver.
    :param already_read: records behind the checkpoint.
    """

    decision: str
    settings: Mapping[str, Any]
    source: Mapping[str, Any]
    sink: Mapping[str, Any]
    partitions: int
    total: Total | None
    already_read: int

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["total"] = None if self.total is None else self.total.records
        return values
