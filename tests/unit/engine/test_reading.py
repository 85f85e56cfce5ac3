"""Reading ahead: bounded by bytes, never blocking a leg that ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from typing_extensions import override

from airflow_batchkit.engine.exceptions import StoppedError, TransientError
from airflow_batchkit.engine.policies import RateLimit, Timeouts
from airflow_batchkit.engine.reading import READ_AHEAD_BYTES, Arrival, ReadAhead
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.engine.types import Cursor, Page, Sizing
from airflow_batchkit.testing.doubles import MemorySource, NoConnections, made_up_records
from airflow_batchkit.testing.doubles.source import OpenMemorySource
from tests.support.legs import World

CONTEXT = OpenContext(connections=NoConnections(), timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC))
SIZING = Sizing(batch_records=None, batch_bytes=10**9)


class CountingSource(OpenMemorySource):
    """Delivers pages of a set size, and counts them as they are asked for."""

    def __init__(self, sizes: list[int], *, partitions: int = 1) -> None:
        names = {f"p{number}": made_up_records(1) for number in range(partitions)}
        super().__init__(MemorySource(partitions=names), CONTEXT)
        self.sizes = sizes
        self.made = 0
        self.ended = threading.Event()

    @override
    def read(self, partition: int, after: Cursor | None, sizing: Sizing) -> Iterator[Page]:
        try:
            for size in self.sizes:
                self.made += 1
                yield Page([], size)
        finally:
            self.ended.set()


def settled(source: CountingSource) -> int:
    """Wait until no more pages are asked for; return how many were."""
    before = -1
    while before != source.made:
        before = source.made
        threading.Event().wait(0.1)
    return before


def drain(reading: ReadAhead) -> list[Arrival]:
    """Take everything until one partition ends."""
    arrivals = []
    while (arrival := reading.next(5)) is not None:
        arrivals.append(arrival)
        if arrival.page is None:
            break
    return arrivals


def test_readers_wait_while_enough_is_queued() -> None:
    """Ten megabyte pages under a limit of three: three wait in the queue, one in the reader's hand."""
    source = CountingSource([10**6] * 10)
    reading = ReadAhead(source, SIZING, max_bytes=3 * 10**6)
    reading.begin(0, None)

    assert settled(source) == 4
    assert reading.next(1) is not None
    assert settled(source) == 5
    reading.stop()


def test_a_page_larger_than_the_limit_passes_alone() -> None:
    """Else it would wait for ever."""
    source = CountingSource([10**7] * 3)
    reading = ReadAhead(source, SIZING, max_bytes=10)
    reading.begin(0, None)

    assert settled(source) == 2
    assert [arrival.page is not None for arrival in drain(reading)] == [True, True, True, False]


def test_several_readers_share_the_limit() -> None:
    """Together they never hold more than the limit, and each one page."""
    source = CountingSource([10**6] * 10, partitions=4)
    reading = ReadAhead(source, SIZING, max_bytes=2 * 10**6)
    for partition in range(4):
        reading.begin(partition, None)

    assert settled(source) == 2 + 4
    reading.stop()


def test_stop_lets_the_readers_end_and_drops_what_they_hold() -> None:
    """A reader that waits for room ends, and its source's generator with it."""
    source = CountingSource([10**6] * 10)
    reading = ReadAhead(source, SIZING, max_bytes=1)
    reading.begin(0, None)
    settled(source)
    reading.stop()

    assert source.ended.wait(5)
    assert reading.next(0) is None


def test_an_error_arrives_after_the_pages_before_it() -> None:
    """With the number of its reader, so that late pages of a reader that was given up can be told."""
    world = World()
    world.log.script.fail("page:a", TransientError("reset"), at=3)
    reading = ReadAhead(world.source.open(CONTEXT), SIZING)
    number = reading.begin(0, None)
    arrivals: list[Any] = [reading.next(5) for _ in range(3)]

    assert [arrival.page is not None for arrival in arrivals] == [True, True, False]
    assert isinstance(arrivals[2].error, TransientError)
    assert {arrival.reader for arrival in arrivals} == {number}
    assert reading.begin(0, None) == number + 1


def test_waiting_for_a_page_ends_with_its_timeout_or_when_something_else_happens() -> None:
    """A writer that ends wakes the loop too."""
    changed = threading.Condition()
    reading = ReadAhead(CountingSource([]), SIZING, changed=changed)
    assert reading.next(0.01) is None
    happened = threading.Event()

    def happen() -> None:
        with changed:
            happened.set()
            changed.notify_all()

    threading.Timer(0.1, happen).start()
    began = time.monotonic()
    assert reading.next(30, unless=happened.is_set) is None
    assert time.monotonic() - began < 5


def test_a_slow_sink_holds_the_source_back() -> None:
    """While nothing can be written, no more is read than fits: 40 MB of records, about 12 MB of them read."""
    world = World({"a": made_up_records(400, padding=100_000)}, sink={"one_write_per_partition": True})
    block = world.target.script.block("write")
    thread = threading.Thread(target=world.run, daemon=True)
    thread.start()
    assert block.wait_until_reached()
    pages = -1
    while pages != world.log.script.calls("page:a"):
        pages = world.log.script.calls("page:a")
        threading.Event().wait(0.2)
    block.release()
    thread.join(30)

    assert pages * 10 * 100_000 < READ_AHEAD_BYTES + 5 * 10**6
    assert len(world.ids) == 400


@pytest.mark.parametrize("limit", [RateLimit(records_per_second=20), RateLimit(bytes_per_second=500)])
def test_a_rate_limit_holds_the_source_too(limit: RateLimit) -> None:
    """Not only the sink: in the first second no more than a few seconds' worth is asked of the source."""
    world = World({"a": made_up_records(400)}, source={"page_records": 20}, throttle=limit)
    stop = Stop()
    threading.Timer(0.5, stop.ask, args=("enough",)).start()
    with pytest.raises(StoppedError):
        world.run(stop=stop)

    assert world.log.script.calls("page:a") <= 4


class AskedPages(CountingSource):
    """Notes how large a page it is asked for, each time."""

    def __init__(self, pages: int) -> None:
        super().__init__([1] * pages)
        self.asked: list[tuple[int, int]] = []
        self.first: list[int] = []

    @override
    def read(self, partition: int, after: Cursor | None, sizing: Sizing) -> Iterator[Page]:
        self.first.append(sizing.first_page_records)
        for page in super().read(partition, after, sizing):
            self.asked.append((sizing.page_records, sizing.page_bytes))
            yield page


def test_a_reader_after_a_pushback_asks_for_less_and_grows_back() -> None:
    """Half as much after one, a quarter after two; each page that arrives is a step back to the whole."""
    source = AskedPages(20)
    sizing = Sizing(batch_records=None, batch_bytes=10**9, page_records=1600, page_bytes=1_600_000)
    reading = ReadAhead(source, sizing)
    reading.ask_for_less(0)
    reading.ask_for_less(0)
    reading.begin(0, None)
    drain(reading)

    assert source.asked[:3] == [(400, 400_000), (500, 500_000), (600, 600_000)]
    assert source.asked[12:] == [(1600, 1_600_000)] * 8
    reading.begin(0, None)
    drain(reading)
    assert source.first == [125, 500]
    assert set(source.asked[20:]) == {(1600, 1_600_000)}, "what is over is forgotten"
    assert (sizing.page_records, sizing.page_bytes) == (1600, 1_600_000)


def test_pages_do_not_shrink_below_what_makes_sense() -> None:
    """Tiny pages would only be more requests to a server that has too many of them."""
    source = AskedPages(1)
    reading = ReadAhead(source, SIZING)
    for _ in range(30):
        reading.ask_for_less(0)
    reading.begin(0, None)
    drain(reading)
    assert source.asked == [(10, 16 * 1024)]

    small = ReadAhead(source, Sizing(batch_records=None, batch_bytes=1, page_records=3, page_bytes=100))
    small.ask_for_less(0)
    small.begin(0, None)
    drain(small)
    assert source.asked[1:] == [(3, 100)], "a page that small already stays what it is"
