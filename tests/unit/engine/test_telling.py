"""Listeners are told; they cannot disturb."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest
from typing_extensions import override

from airflow_batchkit.engine.checkpoint import Checkpoint, Counts, Frontier, PartitionProgress
from airflow_batchkit.engine.exceptions import SupersededError
from airflow_batchkit.engine.listener import Listener
from airflow_batchkit.engine.telling import ProgressTracker, Teller
from airflow_batchkit.engine.types import Total
from airflow_batchkit.testing.doubles import FakeClock
from tests.support.legs import Recorder, World

LOG = logging.getLogger("tests.telling")


class Failing(Listener):
    """Fails at everything it hears of progress."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    @override
    def on_start(self, facts: Mapping[str, Any]) -> None:
        raise self._error

    @override
    def on_progress(self, progress: Any) -> None:
        raise self._error


def test_a_listener_that_fails_does_not_disturb(caplog: pytest.LogCaptureFixture) -> None:
    """The run completes, the others are told, and the failure is reported once, with its stack trace."""
    recorder = Recorder()
    report = World().run(listeners=[Failing(ValueError("no XCom")), recorder], log=LOG)

    assert report.status == "completed"
    assert len(recorder.named("progress")) > 1
    complaints = [record for record in caplog.records if "Failing failed" in record.getMessage()]
    assert len(complaints) == 1
    assert complaints[0].exc_info is not None


def test_each_listener_is_reported_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    """Two that fail are two lines."""
    teller = Teller([Failing(ValueError("a")), Failing(ValueError("b"))], LOG)
    for _ in range(3):
        teller.tell(lambda listener: listener.on_start({}))

    assert len(caplog.records) == 2


def test_a_listener_may_say_that_the_leg_is_superseded() -> None:
    """A state store that answers 404 ends the leg, whoever asked it."""
    with pytest.raises(SupersededError):
        World().run(listeners=[Failing(SupersededError("404"))])


def test_a_listener_hears_nothing_by_default() -> None:
    """Every method of the base class does nothing; only what is wanted is overridden."""
    assert World().run(listeners=[Listener()]).status == "completed"


def test_the_order_of_what_is_told() -> None:
    """Start, progress, publishing, finish; the end of a run is told once."""
    recorder = Recorder()
    World().run(listeners=[recorder])
    names = [name for name, _ in recorder.events if name not in {"progress", "saved"}]

    assert names == ["start", "publishing", "finish"]


def tracker(clock: FakeClock, total: Total | None, **changes: Any) -> tuple[Checkpoint, ProgressTracker]:
    """Begin to track a leg."""
    checkpoint = Checkpoint(run="r", token="t", generation="g", started_at=0.0, **changes)
    return checkpoint, ProgressTracker(checkpoint, total, clock)


def test_waiting_is_part_of_the_rate_and_said_apart() -> None:
    """The rate and the ETA are what comes out, waiting included; active seconds go on from leg to leg."""
    clock = FakeClock()
    checkpoint, track = tracker(clock, Total(records=1000), active_seconds=100.0)
    clock.advance(10)
    track.waited(5)
    checkpoint.counts = Counts(read=500, batches=5, bytes_read=9)
    made = track.progress()

    assert made.records_per_second == 50.0
    assert made.throttled_seconds == 5.0
    assert made.active_seconds == checkpoint.active_seconds == 110.0
    assert made.eta_seconds == 10.0
    assert (made.batches, made.batches_total) == (5, 10)


@pytest.mark.parametrize(
    ("total", "counts", "expected"),
    [
        (None, Counts(read=10, batches=1), None),
        (Total(records=100), Counts(), None),
        (Total(records=100), Counts(read=101, batches=9), None),
        (Total(records=100), Counts(read=30, batches=1), 4),
        (Total(records=100), Counts(read=100, batches=7), 7),
    ],
)
def test_how_many_batches_there_will_be(total: Total | None, counts: Counts, expected: int | None) -> None:
    """By the records per batch so far, rounded up; unknown where nobody can know."""
    _, track = tracker(FakeClock(), total, counts=counts)

    assert track.progress().batches_total == expected


@pytest.mark.parametrize(
    ("frontier", "text"),
    [
        (Frontier(), "at the beginning"),
        (Frontier(2, ()), "finished"),
        (
            Frontier(3, (PartitionProgress(0, {"p": 1}, 1), PartitionProgress(2, None, 0))),
            '0: {"p": 1}; 2: null',
        ),
    ],
)
def test_where_the_run_stands_in_words(frontier: Frontier, text: str) -> None:
    """Short, for people."""
    _, track = tracker(FakeClock(), None, frontier=frontier)

    assert track.progress().cursor == text


def test_a_long_cursor_is_cut() -> None:
    """At 200 characters."""
    frontier = Frontier(1, (PartitionProgress(0, {"key": "x" * 500}, 1),))
    _, track = tracker(FakeClock(), None, frontier=frontier)

    assert len(track.progress().cursor) == 200
    assert track.progress().cursor.endswith("…")
