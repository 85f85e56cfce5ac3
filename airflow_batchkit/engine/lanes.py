"""Which partitions are being read, by which reader, and from where again after a failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_batchkit.engine.batching import Lane
from airflow_batchkit.engine.checkpoint import Frontier
from airflow_batchkit.engine.exceptions import PushbackError, TransientError

if TYPE_CHECKING:
    from airflow_batchkit.engine.batching import Batch
    from airflow_batchkit.engine.clock import Clock
    from airflow_batchkit.engine.policies import BatchRetry
    from airflow_batchkit.engine.reading import Arrival, ReadAhead


class Lanes:
    """The open partitions of a leg.

    :param partitions: names of all partitions, in order.
    :param reading: reads them.
    :param frontier: where the leg begins.
    :param readers: partitions open at the same time.
    :param retry: how often reading from one cursor is tried.
    :param max_wait_in_slot: seconds; a longer wait that the source asks for ends the leg instead.
    :param clock: where the time comes from.
    """

    def __init__(
        self,
        partitions: tuple[str, ...],
        reading: ReadAhead,
        frontier: Frontier,
        *,
        readers: int,
        retry: BatchRetry,
        max_wait_in_slot: float,
        clock: Clock,
    ) -> None:
        self._partitions = partitions
        self._reading = reading
        self._readers = readers
        self._retry = retry
        self._max_wait_in_slot = max_wait_in_slot
        self._clock = clock
        self._lanes: dict[int, Lane] = {}
        self._next = frontier.next
        self._tries: Counter[int] = Counter()
        self._due: dict[int, float] = {}
        for progress in frontier.open:
            self._open(progress.partition, progress.cursor)
        self.open_more()

    def __bool__(self) -> bool:
        return bool(self._lanes)

    @property
    def ended_batches(self) -> int:
        """Batches of windows that are read to their end, but not all durable yet."""
        return sum(lane.ended_batches for lane in self._lanes.values())

    @property
    def frontier(self) -> Frontier:
        """The line behind which everything is durable."""
        lanes = sorted(self._lanes.values(), key=lambda lane: lane.partition)
        return Frontier(self._next, tuple(lane.progress for lane in lanes))

    def of(self, arrival: Arrival) -> Lane | None:
        """Return the lane that an arrival is for; None when it comes from a reader that was given up."""
        lane = self._lanes.get(arrival.partition)
        return lane if lane is not None and lane.reader == arrival.reader else None

    def open_more(self) -> None:
        """Begin with the next partitions where there is room."""
        while len(self._lanes) < self._readers and self._next < len(self._partitions):
            self._open(self._next, None)
            self._next += 1

    def begin_due(self) -> None:
        """Start the readers whose wait after a failure is over."""
        now = self._clock.monotonic()
        for partition in [partition for partition, due in self._due.items() if now >= due]:
            del self._due[partition]
            lane = self._lanes[partition]
            lane.forget_window(self._reading.begin(partition, lane.read_cursor))

    def read_again_later(self, lane: Lane, error: BaseException) -> tuple[str, int, float]:
        """Plan to read the open window again from its start.

        :returns: what is read again, which try failed, and the seconds until the next.
        :raises BaseException: ``error`` itself, when trying again would not help or not fit into this leg.
        :raises TransientError: a part of the window is written: only a new leg may read it again.
        """
        if not isinstance(error, TransientError):
            raise error
        name = self._partitions[lane.partition]
        if not lane.in_clean_window:
            raise TransientError(
                f"reading {name} broke off in the middle of a window that is partly written; "
                f"the next leg reads it again from its start ({error})"
            ) from error
        self._tries[lane.partition] += 1
        tries = self._tries[lane.partition]
        asked = error.retry_after if isinstance(error, PushbackError) else None
        wait = self._retry.pause(tries, asked=asked)
        if tries >= self._retry.max_tries or wait > self._max_wait_in_slot:
            raise error
        if isinstance(error, PushbackError):
            self._reading.ask_for_less(lane.partition)
        lane.forget_window(reader=0)
        self._due[lane.partition] = self._clock.monotonic() + wait
        return f"read of {name}", tries, wait

    def commit(self) -> Iterator[list[Batch]]:
        """Move each lane's cursor over what is durable; yield the batches of each lane that moved."""
        for partition, lane in list(self._lanes.items()):
            batches = lane.commit()
            if batches is not None:
                self._tries.pop(partition, None)
            if lane.finished:
                del self._lanes[partition]
            if batches is not None or lane.finished:
                yield batches or []

    def _open(self, partition: int, cursor: dict[str, Any] | None) -> None:
        self._lanes[partition] = Lane(partition, cursor, self._reading.begin(partition, cursor))
