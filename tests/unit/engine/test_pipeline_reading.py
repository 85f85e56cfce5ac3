"""A read that fails: made again where nothing is written, else left to the next leg."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import (
    OrderError,
    PushbackError,
    RecordError,
    StoppedError,
    TransientError,
)
from airflow_batchkit.engine.policies import BatchRetry, ErrorBudget, RateLimit
from airflow_batchkit.engine.reading import Arrival, ReadAhead
from airflow_batchkit.engine.types import Cursor, Page, Record
from airflow_batchkit.testing.doubles import made_up_records
from tests.support.legs import HurryingClock, Recorder, World

ALL = [record.id for record in made_up_records(45)]
ONCE = BatchRetry(max_tries=1)


def odd_fails(document: dict[str, Any]) -> dict[str, Any]:
    """Give up every other record."""
    if document["id"] % 2:
        raise RecordError("odd")
    return document


@pytest.mark.parametrize("style", ["records", "windows"])
def test_a_read_that_fails_in_a_clean_window_is_made_again(style: str) -> None:
    """Nothing of the window is written: the same leg reads it again, from the window's start."""
    world = World(source={"style": style, "window_records": 10})
    world.log.script.fail("page:a", TransientError("reset"), at=3)
    recorder = Recorder()
    report = world.run(listeners=[recorder])

    assert report.legs == 1
    assert world.ids == ALL
    assert recorder.named("retry") == [("read of a", "reset", 1)]
    assert len(world.log.reads) == 2


def test_a_read_that_fails_in_a_half_filled_batch_drops_only_that_batch() -> None:
    """What was read of the batch, and its dead letters, are read again and counted once."""
    world = World(
        {"a": made_up_records(30)},
        source={"page_records": 4},
        transform=odd_fails,
        error_budget=ErrorBudget(max_dead_letters=15),
    )
    world.log.script.fail("page:a", TransientError("reset"), at=5)
    report = world.run(world.job(dead_letters=world.letters))

    assert report.counts["dead_lettered"] == 15
    assert world.ids == [str(number) for number in range(2, 31, 2)]


def test_a_read_that_fails_in_a_window_that_is_partly_written_ends_the_leg() -> None:
    """The next leg reads the window again under its own token: nothing is lost, nothing doubled."""
    world = World(
        {"a": made_up_records(60)}, source={"style": "windows", "window_records": 30}, batch_retry=ONCE
    )
    world.log.script.fail("page:a", TransientError("PIT lost"), at=3)

    with pytest.raises(StoppedError, match=r"in the middle of a window .*PIT lost") as caught:
        world.run()
    assert caught.value.resume_after == 60.0, "stuck at the first cursor: the second pause is longer"
    report = world.run()

    assert report.legs == 2
    assert world.ids == [str(number) for number in range(1, 61)]
    assert report.counts["read"] == 60


def test_reading_is_tried_as_often_as_the_policy_says() -> None:
    """Four tries at one cursor, then the leg ends; the tries begin anew once a window was committed."""
    world = World()
    world.log.script.fail("page:a", TransientError("reset"), at=2, times=3)
    assert world.run().legs == 1

    world = World()
    world.log.script.fail("page:a", TransientError("reset"), at=1, times=4)
    with pytest.raises(StoppedError, match="reset"):
        world.run()
    assert world.log.script.calls("page:a") == 4


def test_a_source_that_pushes_back_is_waited_for() -> None:
    """Its Retry-After is a lower bound; one that does not fit the slot ends the leg for that long."""
    world = World()
    world.log.script.fail("page:a", PushbackError("429", 0.2), at=2)
    recorder = Recorder()
    world.run(listeners=[recorder])
    assert len(recorder.named("retry")) == 1

    world = World()
    world.log.script.fail("page:a", PushbackError("429", 300.0), at=2)
    with pytest.raises(StoppedError) as caught:
        world.run()
    assert caught.value.resume_after == 300.0


@pytest.mark.parametrize(
    ("error", "pages"),
    [(PushbackError("429"), [100, 0, 50, 56, 62, 32]), (TransientError("reset"), [100, 0, 100, 100])],
)
def test_a_source_that_pushes_back_is_asked_for_less(error: TransientError, pages: list[int]) -> None:
    """The next reader begins with pages half as large, which grow back; a reset changes nothing."""
    world = World(
        {"a": made_up_records(300)},
        source={"page_records": 1000},
        throttle=RateLimit(records_per_second=100),
        clock=HurryingClock(),
    )
    sizes: list[int] = []

    def note(records: list[Record]) -> list[Record]:
        sizes.append(len(records))
        return records

    for number in range(1, 10):
        world.log.change_page("a", number, note)
    world.log.script.fail("page:a", error, at=2)
    world.run()

    assert sizes == [size for size in pages if size]
    assert world.log.script.calls("page:a") == len(pages)
    assert world.ids == [str(number) for number in range(1, 301)]


def test_a_source_that_breaks_its_promise_fails_the_run() -> None:
    """What will not work next time either is not tried again; the target is free for a mended job."""
    world = World()
    world.log.script.fail("page:a", OrderError("key 7 came after key 9"), at=2)

    with pytest.raises(OrderError):
        world.run()

    assert world.stood.status == "failed"
    assert world.log.script.calls("page:a") == 2
    assert world.target.owner is None


def test_late_pages_of_a_reader_that_was_given_up_are_void() -> None:
    """Two partitions fail again and again while others go on: every record comes out once."""
    world = World(
        {f"p{number}": made_up_records(40, prefix=f"{number}-") for number in range(4)},
        source={"page_records": 3},
        readers=4,
    )
    for number in range(4):
        world.log.script.fail(f"page:p{number}", TransientError("reset"), at=2 + number, times=2)
    world.run()

    assert len(world.ids) == len(set(world.ids)) == 160


def test_a_page_of_a_reader_that_was_given_up_is_void(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes too late, whoever sent it: the partition has another reader now."""
    begin = ReadAhead.begin

    def begin_beside_a_ghost(self: ReadAhead, partition: int, after: Cursor | None) -> int:
        self._put(Arrival(-1, partition, Page(made_up_records(5, prefix="ghost-"), 500)))
        return begin(self, partition, after)

    monkeypatch.setattr(ReadAhead, "begin", begin_beside_a_ghost)
    world = World()
    world.run()

    assert world.ids == ALL
