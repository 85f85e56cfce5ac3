"""What a sink is: a value with settings; once opened, it makes batches durable and publishes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_batchkit.engine.checkpoint import Frontier
    from airflow_batchkit.engine.source import OpenContext
    from airflow_batchkit.engine.types import Record, WriteResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """What this leg takes over from the leg before it.

    :param token: the earlier leg.
    :param frontier: how far that leg had been saved: only its batches behind this line count.
    """

    token: str
    frontier: Frontier


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One uninterrupted ``execute()``.

    :param job: what is done, in all its runs (``dag_id.task_id``, or source and sink of a ``copy``).
    :param run: which run of it; safe in object keys.
    :param token: names this leg, made new each time; 16 hex digits.
    :param generation: names the run's published output; 8 hex digits, the same in all legs of the run.
    :param mode: ``"real"``, ``"partial"`` or ``"local"``.
    :param partitions: names of the source's partitions, in order.
    :param inherited: the leg before this one in the same run, None for the first.
    :param origin: where the run comes from, in its scheduler's words, for the dead letters.
    :param holder: who sees to it that this run has one leg at a time; another holder's leg is not taken for
        dead before its lease is over.
    :param former_job: the job that had the run so far, where this one goes on with it; else empty.
    """

    job: str
    run: str
    token: str
    generation: str
    mode: str
    partitions: Sequence[str]
    inherited: Inherited | None = None
    origin: Mapping[str, str | int] = field(default_factory=dict)
    holder: str = ""
    former_job: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchKey:
    """Which batch: the same key in the same leg always holds the same records.

    :param partition: position of the partition in ``Leg.partitions``.
    :param number: from 1, in reading order, per leg and partition.
    """

    partition: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What a sink needs to make the finished output visible.

    :param frontier: what counts of this leg's batches.
    :param counts: the run's counts, for the manifest.
    :param fingerprints: the run's fingerprints, for the manifest.
    :param notes: more lines for the manifest (snapshots of the source, dead letters' place, start and end).
    :param stop_asked: returns the reason when someone asks to stop, else None; ask between steps.
    """

    frontier: Frontier
    counts: Mapping[str, int]
    fingerprints: Mapping[str, str]
    notes: Mapping[str, Any]
    stop_asked: Callable[[], str | None]


class BatchWriter(Protocol):
    """One batch on its way into the sink."""

    def add(self, records: Sequence[Record]) -> None:
        """Take records into the batch (and encode or compress them); nothing reaches the sink yet."""
        ...

    def write(self) -> WriteResult:
        """Make the batch durable; blocks. An empty batch writes nothing.

        Runs in a writer thread. After a ``TransientError`` the engine calls again: what is durable already
        must not be written a second time under another name, and must be counted once.

        :raises TransientError: may work when called again.
        :raises PermanentError: will not.
        """
        ...


@runtime_checkable
class GradualWriter(Protocol):
    """What a :class:`BatchWriter` has besides that gets its batch done by several calls.

    Tries are counted from the last one that got anything done: a sink that takes a batch in ten bites, and
    pushes back after each, is not in trouble.
    """

    @property
    def done(self) -> int:
        """Records that are durable or given up, also while ``write`` fails."""
        ...


class OpenSink(Protocol):
    """A sink with its connections made. All calls but :meth:`BatchWriter.write` come from one thread."""

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Short hashes of ``target`` and ``format``: a change makes a checkpoint useless."""
        ...

    @property
    def environment(self) -> Mapping[str, Any]:
        """Facts for the log's start block; no secrets."""
        ...

    @property
    def state(self) -> Mapping[str, Any]:
        """Small JSON object for the checkpoint, given back to the next leg (under 500 bytes)."""
        ...

    def start(self, leg: Leg) -> None:
        """Take ownership of the target for this leg, before the checkpoint names it.

        :raises TargetHeldError: a live run of another job, or another run of this one, owns the target.
        """
        ...

    def begin(self, key: BatchKey) -> BatchWriter:
        """Begin a batch."""
        ...

    def renew(self, *, for_seconds: float = 0.0) -> None:
        """Renew the ownership's lease; called at each save, so a sink decides itself when it is due.

        :param for_seconds: the leg ends now and the next begins in about this many seconds: the lease must
            last at least that long.
        :raises SupersededError: another leg owns the target now.
        """
        ...

    def publish(self, publication: Publication) -> Mapping[str, Any]:
        """Make the output visible in one step; may be called again after a kill at any point in it.

        :returns: what was published (location, manifest, parts, bytes), as JSON types, for the report.
        :raises SupersededError: another leg owns the target now.
        """
        ...

    def release(self) -> None:
        """Give up the ownership (after success, or a failure that only a person can mend). Never raises."""
        ...

    def close(self) -> None:
        """Close sockets, also under a writer that hangs. Never raises."""
        ...


@runtime_checkable
class Sink(Protocol):
    """Settings of a sink: a :class:`~airflow_batchkit.engine.values.Value` that opens nothing by itself."""

    @property
    def idempotent(self) -> bool:
        """False where writing a batch twice leaves two of it: the checkpoint is saved after every batch."""
        ...

    @property
    def one_write_per_partition(self) -> bool:
        """True where two batches may hold the same id: then only one write per partition is in flight."""
        ...

    @property
    def default_batch_bytes(self) -> int:
        """Bytes of a batch when ``BatchPolicy`` does not say."""
        ...

    @property
    def default_batch_records(self) -> int | None:
        """Records of a batch when ``BatchPolicy`` does not say; None: bytes alone decide."""
        ...

    def open(self, context: OpenContext) -> OpenSink:
        """Connect and look; writes nothing.

        :raises UsageError: the settings do not fit what is there (no such bucket, no permission).
        :raises TransientError: the server does not answer.
        """
        ...

    def serialize(self) -> dict[str, Any]:
        """Return the settings as JSON types, without secrets."""
        ...
