"""Cuts what was read into batches and windows, and knows which of them count.

A :class:`Lane` follows one open partition. Its windows stand in reading order; the checkpoint's cursor moves
over a window only when every batch of it, and of all windows before it, is durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_batchkit.engine.checkpoint import Counts, PartitionProgress, cursor_dict
from airflow_batchkit.engine.sink import BatchKey
from airflow_batchkit.engine.tally import Tally
from airflow_batchkit.engine.types import record_size

if TYPE_CHECKING:
    from airflow_batchkit.engine.policies import BatchPolicy
    from airflow_batchkit.engine.sink import BatchWriter, Sink
    from airflow_batchkit.engine.transform import TransformResult
    from airflow_batchkit.engine.types import Cursor, Page, Record, Rejection


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is full.

    :param max_records: None: bytes alone decide.
    :param max_bytes: before compression.
    """

    max_records: int | None
    max_bytes: int

    @classmethod
    def of(cls, policy: BatchPolicy, sink: Sink) -> Limits:
        """Take what the policy says, and what the sink thinks best where it says nothing."""
        return cls(
            policy.max_records or sink.default_batch_records, policy.max_bytes or sink.default_batch_bytes
        )


@dataclass(frozen=True, slots=True)
class Slice:
    """Some records of a page.

    :param records: may be empty, when the draft was full before.
    :param nbytes: their size.
    :param fills: whether the draft is full with them.
    """

    records: list[Record]
    nbytes: int
    fills: bool


@dataclass(slots=True, eq=False)
class Batch:
    """Records on their way into the sink in one go.

    :param key: names the batch in this leg.
    :param writer: the sink's side of it.
    :param after: the cursor that its window was read after.
    :param counts: what became of its records; final once :attr:`durable`.
    :param rejected: records given up so far; kept only until the dead letters are durable.
    :param records: records taken from the source.
    :param nbytes: bytes taken from the source.
    :param tally: what made its dead letters.
    :param durable: set by the loop once sink and dead letters hold everything.
    """

    key: BatchKey
    writer: BatchWriter
    after: Cursor | None = None
    counts: Counts = field(default_factory=lambda: Counts(batches=1))
    rejected: list[Rejection] = field(default_factory=list)
    records: int = 0
    nbytes: int = 0
    tally: Tally = field(default_factory=Tally)
    durable: bool = False

    def take(self, taken: Slice, result: TransformResult) -> None:
        """Account for records that went through the transform into the writer."""
        self.records += len(taken.records)
        self.nbytes += taken.nbytes
        self.rejected += [*result.unreadable, *result.rejected]
        counts = self.counts
        counts.read += len(taken.records)
        counts.bytes_read += taken.nbytes
        counts.transformed += result.transformed
        counts.filtered += result.filtered
        counts.produced += len(result.produced)
        counts.dead_lettered_by_source += len(result.unreadable)
        counts.dead_lettered_by_transform += len(result.rejected)


@dataclass(slots=True)
class Window:
    """The stretch that is committed as a whole.

    :param batches: its closed batches, in order.
    :param end: the cursor after it.
    :param closed: whether the source said that it ends here.
    """

    batches: list[Batch] = field(default_factory=list)
    end: Cursor | None = None
    closed: bool = False

    @property
    def durable(self) -> bool:
        """Whether the cursor may move over it."""
        return self.closed and all(batch.durable for batch in self.batches)


class Lane:
    """One open partition on its way through the loop.

    :param partition: its position.
    :param cursor: where this leg begins to read it.
    :param reader: number of the reader that fills it.
    """

    def __init__(self, partition: int, cursor: Cursor | None, reader: int) -> None:
        self.partition = partition
        self.reader = reader
        self.cursor = cursor
        self.read_cursor = cursor
        self.committed_batches = 0
        self.draft: Batch | None = None
        self._last_number = 0
        self._windows: deque[Window] = deque([Window()])
        self._end_here: Cursor | None = None

    @property
    def finished(self) -> bool:
        """Whether everything of the partition is durable."""
        return not self._windows  # only the partition's end takes the open one away

    @property
    def ended_batches(self) -> int:
        """Batches of windows that are read to their end, but not committed yet."""
        return sum(len(window.batches) for window in self._windows if window.closed)

    @property
    def progress(self) -> PartitionProgress:
        """What the checkpoint says of this partition."""
        return PartitionProgress(self.partition, cursor_dict(self.cursor), self.committed_batches)

    @property
    def in_clean_window(self) -> bool:
        """Whether the window being read can be read again: nothing of it was handed to the sink yet."""
        return not self._windows[-1].batches

    def next_key(self) -> BatchKey:
        """Name the batch that begins now."""
        self._last_number += 1
        return BatchKey(partition=self.partition, number=self._last_number)

    def forget_window(self, reader: int) -> None:
        """Drop what was read of the open window; ``reader`` reads it again from its start."""
        self.draft = None
        self._end_here = None
        self.reader = reader

    def cut(self, page: Page, limits: Limits) -> Iterator[Slice]:
        """Cut a page into what still fits the draft, and what goes into the batches after it.

        The caller makes the draft when there is none, adds each slice, and closes it when a slice says so.
        """
        start = 0
        while start < len(page.records):
            taken, nbytes = self._room_for(page, start, limits)
            records = page.records[start : start + taken] if taken < len(page.records) else page.records
            start += taken
            if page.cursor_at is not None and taken:
                self._end_here = page.cursor_at(start - 1)
            used_records, used_bytes = self._used
            full = used_bytes + nbytes >= limits.max_bytes or used_records + taken == limits.max_records
            yield Slice(records, nbytes, fills=full or start < len(page.records))

    @property
    def _used(self) -> tuple[int, int]:
        return (0, 0) if self.draft is None else (self.draft.records, self.draft.nbytes)

    def _room_for(self, page: Page, start: int, limits: Limits) -> tuple[int, int]:
        left = len(page.records) - start
        used_records, used_bytes = self._used
        room = left if limits.max_records is None else min(left, limits.max_records - used_records)
        if start == 0 and room == left and used_bytes + page.nbytes <= limits.max_bytes:
            return left, page.nbytes
        taken = nbytes = 0
        for record in page.records[start : start + room]:
            size = record_size(record)
            if used_bytes + nbytes + size > limits.max_bytes and (taken or used_records):
                break
            taken += 1
            nbytes += size
        return taken, nbytes

    def close_draft(self) -> Batch | None:
        """End the batch being filled, and the window with it where the source can resume after any record."""
        batch, self.draft = self.draft, None
        if batch is not None:
            self._windows[-1].batches.append(batch)
        if self._end_here is not None:
            self.end_window(self._end_here)
        return batch

    def end_window(self, end: Cursor | None) -> None:
        """End the window being read; the draft must be closed already."""
        window = self._windows[-1]
        window.end, window.closed = end, True
        self.read_cursor = end
        self._end_here = None
        self._windows.append(Window())

    def end(self) -> None:
        """Note that the partition has no more pages; the draft must be closed already."""
        window = self._windows[-1]
        if window.batches:
            window.closed = True
        else:
            self._windows.pop()

    def commit(self) -> list[Batch] | None:
        """Move the cursor over the longest durable prefix; return its batches, None when nothing moved."""
        moved: list[Batch] | None = None
        while self._windows and self._windows[0].durable:
            window = self._windows.popleft()
            moved = [*(moved or ()), *window.batches]
            if window.batches:
                self.committed_batches = window.batches[-1].key.number
            if window.end is not None:
                self.cursor = window.end
        return moved
