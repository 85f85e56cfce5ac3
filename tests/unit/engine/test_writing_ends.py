"""How writing ends: the tries of one call, and the threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta

import pytest
from typing_extensions import override

from airflow_batchkit.engine.batching import Batch
from airflow_batchkit.engine.exceptions import TransientError
from airflow_batchkit.engine.policies import BatchRetry
from airflow_batchkit.engine.sink import BatchKey
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.engine.types import Record, WriteResult
from airflow_batchkit.engine.writing import Notice, Retrying, Writers
from tests.support.object_storage import leg

POLICY = BatchRetry(max_tries=3, first_wait=timedelta(microseconds=1), max_wait=timedelta(microseconds=1))


def test_tries_in_vain_end_also_after_something_was_done() -> None:
    """Progress gives a call new tries once: what comes to a stand later fails after as many tries as ever."""
    notices: list[Notice] = []
    retrying = Retrying(POLICY, total_seconds=60.0, stop=Stop(), max_wait_in_slot=60.0, notify=notices.append)
    done = [0, 0]

    def write() -> None:
        done[1] += 1
        done[0] = min(done[1], 5)
        raise TransientError(f"503 #{done[1]}")

    with pytest.raises(TransientError, match=r"^503 #7$"):
        retrying("write", write, done=lambda: done[0])
    assert [notice.tries for notice in notices] == [1, 1, 1, 1, 1, 2]


def test_a_write_that_hangs_cannot_hold_the_process() -> None:
    """The threads are daemons, and are named after what they do: a stack trace says which is which."""
    before = set(threading.enumerate())
    retrying = Retrying(POLICY, total_seconds=60.0, stop=Stop(), max_wait_in_slot=60.0, notify=lambda _: None)
    writers = Writers(3, one_per_partition=False, leg=leg("1"), dead_letters=None, retrying=retrying)
    started = set(threading.enumerate()) - before
    try:
        assert {thread.name for thread in started} == {f"batchkit-write-{number}" for number in (1, 2, 3)}
        assert all(thread.daemon for thread in started)
    finally:
        writers.stop()
    for thread in started:
        thread.join(timeout=10)
        assert not thread.is_alive(), "stop() sends each of them home"


class Held:
    """A batch's writer that waits until it may go on."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()

    def add(self, records: Sequence[Record]) -> None:
        """Take nothing."""

    def write(self) -> WriteResult:
        """Wait, ten seconds at most."""
        self.may_go_on.wait(10)
        return WriteResult(written=0)


def test_no_more_writes_are_in_flight_than_there_are_threads() -> None:
    """A batch more would wait in memory; there is room again when one is collected."""
    retrying = Retrying(POLICY, total_seconds=60.0, stop=Stop(), max_wait_in_slot=60.0, notify=lambda _: None)
    writers = Writers(2, one_per_partition=False, leg=leg("1"), dead_letters=None, retrying=retrying)
    held = Held()
    try:
        for number in (1, 2):
            assert writers.has_room(0)
            writers.submit(Batch(BatchKey(partition=0, number=number), held, None))
        assert not writers.has_room(0)
        held.may_go_on.set()
        assert writers.collect(10)
        assert writers.has_room(0)
    finally:
        writers.stop()


class Gradual(Held):
    """A batch's writer that gets a part done at each of its first four tries, and the rest at the sixth."""

    def __init__(self) -> None:
        super().__init__()
        self.done = 0
        self._tries = 0

    @override
    def write(self) -> WriteResult:
        self._tries += 1
        self.done = min(self._tries, 4)
        if self._tries < 6:
            raise TransientError(f"429 #{self._tries}")
        return WriteResult(written=1, unchanged=2, skipped=3)


def test_a_batch_that_gets_on_is_not_given_up() -> None:
    """Three tries in vain are the limit, not three tries; in the end all that became of it is counted."""
    retrying = Retrying(POLICY, total_seconds=60.0, stop=Stop(), max_wait_in_slot=60.0, notify=lambda _: None)
    writers = Writers(1, one_per_partition=False, leg=leg("1"), dead_letters=None, retrying=retrying)
    try:
        writers.submit(Batch(BatchKey(partition=0, number=1), Gradual(), None))
        [outcome] = writers.collect(10)
    finally:
        writers.stop()
    assert outcome.error is None
    counts = outcome.batch.counts
    assert (counts.written, counts.unchanged, counts.skipped) == (1, 2, 3)
