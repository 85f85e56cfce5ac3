"""Progress that survives the process: one JSON value under 4 KB, written in one go."""

from __future__ import annotations

import collections
import zlib
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

from airflow_batchkit.engine.exceptions import CannotResumeError, PermanentError
from airflow_batchkit.engine.policies.budget import Spent
from airflow_batchkit.engine.types import Cursor

if TYPE_CHECKING:
    from airflow_batchkit.engine.tally import Tally

SCHEMA_VERSION = 1
MAX_BYTES = 4096
_ERROR_TYPES = 8


class PartitionProgress(msgspec.Struct, array_like=True, frozen=True):
    """Where one open partition stands.

    :param partition: its position in the list of partitions.
    :param cursor: resume strictly after it; None at the partition's beginning.
    :param batches: number of the last batch of this partition that counts *in the current leg*.
    """

    partition: int
    cursor: dict[str, Any] | None = None
    batches: int = 0


class Frontier(msgspec.Struct, frozen=True, array_like=True):
    """The line behind which everything is durable.

    Partitions are opened in order, at most eight at a time, so two facts tell all of them apart: those before
    ``next`` have been opened, and of these only the ones in ``open`` are unfinished.

    :param next: position of the first partition that was never opened.
    :param open: the partitions being read, by position.
    """

    next: int = 0
    open: tuple[PartitionProgress, ...] = ()

    def finished(self, partition: int) -> bool:
        """Whether every record of the partition is behind the line."""
        return partition < self.next and all(progress.partition != partition for progress in self.open)

    def covers(self, partition: int, batch: int) -> bool:
        """Whether a batch that the leg of this frontier wrote counts."""
        for progress in self.open:
            if progress.partition == partition:
                return batch <= progress.batches
        return partition < self.next

    def for_new_leg(self) -> Frontier:
        """Return the same line as a new leg starts with: same cursors, none of its own batches yet."""
        return Frontier(
            self.next, tuple(PartitionProgress(progress.partition, progress.cursor) for progress in self.open)
        )


class Counts(msgspec.Struct):
    """What became of the records, over the whole run. Both ends must add up (:meth:`difference`)."""

    read: int = 0
    filtered: int = 0
    transformed: int = 0
    produced: int = 0
    written: int = 0
    unchanged: int = 0
    dead_lettered_by_source: int = 0
    dead_lettered_by_transform: int = 0
    dead_lettered_by_sink: int = 0
    skipped: int = 0
    batches: int = 0
    bytes_read: int = 0
    retries: int = 0

    @property
    def dead_lettered(self) -> int:
        """Records given up and kept, whoever gave them up."""
        return self.dead_lettered_by_source + self.dead_lettered_by_transform + self.dead_lettered_by_sink

    def add(self, other: Counts) -> None:
        """Add another's numbers to these."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def difference(self) -> str | None:
        """Say where the two ends do not add up, None where they do."""
        by_source, by_transform = self.dead_lettered_by_source, self.dead_lettered_by_transform
        taken = self.transformed + self.filtered + by_source + by_transform
        if self.read != taken:
            return (
                f"read {self.read:,} records, but transformed {self.transformed:,} + "
                f"filtered {self.filtered:,} + dead-lettered by the source {by_source:,} and "
                f"by the transform {by_transform:,} = {taken:,} (difference {self.read - taken:+,})"
            )
        given = self.written + self.unchanged + self.dead_lettered_by_sink + self.skipped
        if self.produced != given:
            return (
                f"produced {self.produced:,} records, but written {self.written:,} + "
                f"unchanged {self.unchanged:,} + dead-lettered by the sink {self.dead_lettered_by_sink:,} + "
                f"skipped {self.skipped:,} = {given:,} "
                f"(difference {self.produced - given:+,})"
            )
        return None


class Budget(msgspec.Struct):
    """The error budget's period: it begins at the run's start, and anew when a person clears a failed run.

    :param read: ``Counts.read`` when the period began.
    :param dead_lettered: ``Counts.dead_lettered`` when the period began.
    :param classes: ``Checkpoint.classes`` when the period began.
    :param warned: the last part of the budget of whose use was warned.
    :param exceeded: the limit over which the run failed, in words; empty while the budget holds.
    """

    read: int = 0
    dead_lettered: int = 0
    classes: dict[str, int] = {}
    warned: float = 0.0
    exceeded: str = ""


class Checkpoint(msgspec.Struct, kw_only=True):
    """Everything the next leg needs, in one value.

    :param job: what is done, in all its runs.
    :param run: which run it belongs to.
    :param alias: a second name of the run, given by who went on with it; empty: the first was made up, and
        whoever does the same work may go on; None: the run has its one name.
    :param clear_marker: tells the tries of one clear from those of the next.
    :param mode: ``real``, ``partial`` or ``local``; never resumed in another.
    :param status: ``running``, ``failed`` or ``completed``; an empty frontier only means "at the beginning".
    :param token: the leg that saved it.
    :param generation: names the run's output.
    :param started_at: seconds since the epoch: the run's one ``now``.
    :param saved_at: seconds since the epoch.
    :param active_seconds: time that all legs together worked.
    :param legs: how many legs the run had since it began, or was cleared last.
    :param stuck_legs: how many legs in a row ended in a transient failure without moving the cursor.
    :param fingerprints: short hashes by name.
    :param frontier: how far the run is.
    :param counts: what became of the records.
    :param budget: the error budget's period.
    :param source: what the source wants back.
    :param sink: what the sink wants back.
    :param errors: the most frequent error types and their counts, at most eight.
    :param samples: the id of one record for each of these, in their order, cut where it is long.
    :param classes: dead letters by error class.
    :param report: the final report, once completed.
    """

    schema: int = SCHEMA_VERSION
    job: str = ""
    run: str
    alias: str | None = None
    clear_marker: str = ""
    mode: str = "real"
    status: str = "running"
    token: str
    generation: str
    started_at: float
    saved_at: float = 0.0
    active_seconds: float = 0.0
    legs: int = 1
    stuck_legs: int = 0
    fingerprints: dict[str, str] = {}
    frontier: Frontier = Frontier()
    counts: Counts = msgspec.field(default_factory=Counts)
    budget: Budget = msgspec.field(default_factory=Budget)
    source: dict[str, Any] = {}
    sink: dict[str, Any] = {}
    errors: dict[str, int] = {}
    samples: list[str] = []
    classes: dict[str, int] = {}
    report: dict[str, Any] | None = None

    @property
    def spent(self) -> Spent:
        """What the error budget is asked about: what came since its period began."""
        before = self.budget
        return Spent(
            read=self.counts.read - before.read,
            dead_lettered=self.counts.dead_lettered - before.dead_lettered,
            classes={name: count - before.classes.get(name, 0) for name, count in self.classes.items()},
        )

    def begin_budget_period(self) -> None:
        """Fill the error budget again."""
        self.budget = Budget(
            read=self.counts.read, dead_lettered=self.counts.dead_lettered, classes=dict(self.classes)
        )

    def note_errors(self, tally: Tally) -> None:
        """Add what made a batch's dead letters; of the error types the eight most frequent are kept."""
        types = collections.Counter(self.errors)
        # Those of an old checkpoint have none.
        samples = {**tally.samples, **dict(zip(self.errors, self.samples, strict=False))}
        types.update(tally.types)
        self.errors = dict(types.most_common(_ERROR_TYPES))
        self.samples = [samples.get(name, "") for name in self.errors]
        self.classes = dict(collections.Counter(self.classes) + tally.classes)


def encode(checkpoint: Checkpoint) -> str:
    """Return the stored form: the JSON object with its own checksum in front.

    :raises PermanentError: the value is larger than 4 KB (a connector put too much into its state).
    """
    payload = msgspec.json.encode(checkpoint)
    stored = b'{"crc32":%d,"checkpoint":%b}' % (zlib.crc32(payload), payload)
    if len(stored) > MAX_BYTES:
        message = (
            f"the checkpoint is {len(stored):,} bytes, at most {MAX_BYTES:,} are allowed: the cursors, or "
            "the state of source or sink, are too large (read fewer partitions at a time)"
        )
        raise PermanentError(message)
    return stored.decode()


class _Stored(msgspec.Struct):
    crc32: int
    checkpoint: msgspec.Raw


class _Schema(msgspec.Struct):
    schema: int


def decode(stored: str) -> Checkpoint:
    """Read a stored checkpoint back.

    :raises CannotResumeError: it is damaged, or a newer version of the package wrote it.
    """
    try:
        envelope = msgspec.json.decode(stored, type=_Stored)
        payload = bytes(envelope.checkpoint)
        if zlib.crc32(payload) != envelope.crc32:
            message = (
                "the stored checkpoint is damaged (its checksum does not fit); restart the run to begin anew"
            )
            raise CannotResumeError(message)
        schema = msgspec.json.decode(payload, type=_Schema).schema
        if schema > SCHEMA_VERSION:
            message = (
                f"the stored checkpoint has format {schema}, this version of airflow-batchkit reads up to "
                f"{SCHEMA_VERSION}: upgrade the package, or restart the run to begin anew"
            )
            raise CannotResumeError(message)
        return msgspec.json.decode(payload, type=Checkpoint)
    except (msgspec.DecodeError, UnicodeError) as error:
        message = f"the stored checkpoint is damaged ({error}); restart the run to begin anew"
        raise CannotResumeError(message) from error


@runtime_checkable
class CheckpointStore(Protocol):
    """Keeps one text value per key; the contract suite in ``tests/contract`` is its specification."""

    @property
    def description(self) -> str:
        """Where the values lie, for logs and messages (``Variables``, ``file:///…``)."""
        ...

    def load(self, key: str) -> str | None:
        """Return what :meth:`save` stored last under the key, None when there is nothing.

        :raises TransientError: the store does not answer.
        :raises SupersededError: the store says that this leg is no longer the current one.
        """
        ...

    def save(self, key: str, stored: str) -> None:
        """Replace the value, whole or not at all; durable when it returns.

        :raises TransientError: the store does not answer; the old or the new value is there, never a part.
        :raises SupersededError: the store says that this leg is no longer the current one.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the value; nothing happens when there is none."""
        ...


def cursor_dict(cursor: Cursor | None) -> dict[str, Any] | None:
    """Return a cursor as the plain ``dict`` that the checkpoint holds."""
    return None if cursor is None else dict(cursor)
