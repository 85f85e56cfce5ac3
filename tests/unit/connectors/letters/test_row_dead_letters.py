"""Dead letters in rows over the life of a run: staged, shown where it fails, settled where it ends."""

from __future__ import annotations

import pytest
from typing_extensions import override

from airflow_batchkit.connectors.letters.row_dead_letters import OpenRowDeadLetters, open_rows
from airflow_batchkit.connectors.letters.row_sets import RowLetters
from airflow_batchkit.engine.exceptions import (
    PermanentError,
    ReconciliationError,
    SupersededError,
    UsageError,
)
from airflow_batchkit.engine.sink import BatchKey, Leg
from tests.support.letter_rows import MemoryRows, letters_of
from tests.support.object_storage import after_batch, inherited, leg, publication

FIRST = leg("a")
SECOND = leg("b", inherited=inherited("a", after_batch(1)))


def begun(rows: MemoryRows, one: Leg, *numbers: int) -> OpenRowDeadLetters:
    """Start a leg that keeps one letter in each of these batches."""
    place = OpenRowDeadLetters(rows)
    place.start(one)
    for number in numbers:
        place.put(BatchKey(partition=0, number=number), letters_of(one, number, b"{}"))
    return place


def shown(rows: MemoryRows) -> list[tuple[bool, list[str]]]:
    """Return of each set whether its run is complete, and the ids of its letters."""
    letters = RowLetters(rows)
    return [(found.complete, [line.letter.id for line in letters.lines(found)]) for found in letters.sets()]


def test_settled_letters_are_all_that_is_left() -> None:
    """Readers find what counts; staging and links are gone; settled again it is the same."""
    rows = MemoryRows()
    begun(rows, FIRST, 1, 2)
    second = begun(rows, SECOND, 3)

    for _ in range(2):
        assert second.settle(publication(0, dead_lettered=2))["count"] == 2

    assert shown(rows) == [(True, ["1.0", "3.0"])]
    assert len(rows.rows) == 2
    assert list(rows.kept) == ["set/job/run-1"]


def test_a_run_without_letters_leaves_nothing() -> None:
    """No head is written where nothing was given up."""
    rows = MemoryRows()

    assert begun(rows, FIRST).settle(publication(0))["count"] == 0

    assert (rows.rows, rows.kept) == ({}, {})


def test_letters_that_do_not_add_up_fail_the_run() -> None:
    """More or fewer than the checkpoint counts: nothing is shown."""
    rows = MemoryRows()

    with pytest.raises(ReconciliationError, match="2 records were dead-lettered, but 1 dead letters are at"):
        begun(rows, FIRST, 1).settle(publication(0, dead_lettered=2))

    assert shown(rows) == []


def test_what_a_failed_run_shows_is_a_copy() -> None:
    """It is marked, shown twice it is the same, and the run settles the whole when it goes on."""
    rows = MemoryRows()
    first = begun(rows, FIRST, 1)
    for _ in range(2):
        assert first.reveal(publication(0, dead_lettered=1)) == 1
    assert shown(rows) == [(False, ["1.0"])]

    begun(rows, SECOND, 2).settle(publication(0, dead_lettered=2))

    assert shown(rows) == [(True, ["1.0", "2.0"])]
    assert len(rows.rows) == 2


def test_a_leg_that_slept_shows_nothing_over_a_newer_one() -> None:
    """What a newer leg has shown stays."""
    rows = MemoryRows()
    first = begun(rows, FIRST, 1, 2)
    begun(rows, SECOND, 3).reveal(publication(0, dead_lettered=2))

    with pytest.raises(SupersededError, match="has shown the dead letters of this run since"):
        first.reveal(publication(0, dead_lettered=2))

    assert shown(rows) == [(False, ["1.0", "3.0"])]


def test_a_run_begun_anew_does_not_hide_the_letters_of_its_output() -> None:
    """Until it completes, those of the published generation stay."""
    rows = MemoryRows()
    begun(rows, FIRST, 1).settle(publication(0, dead_lettered=1))
    anew = begun(rows, leg("c", generation="1b1b1b1b"), 7)

    with pytest.raises(PermanentError, match="shows the letters of a run that completed"):
        anew.reveal(publication(0, dead_lettered=1))
    assert shown(rows) == [(True, ["1.0"])]

    anew.settle(publication(0, dead_lettered=1))
    assert shown(rows) == [(True, ["7.0"])]


def test_rows_that_cannot_be_a_place_are_closed() -> None:
    """No connection stays open where the look at it failed."""

    class Foreign(MemoryRows):
        @override
        def check(self) -> None:
            raise UsageError("something else")

    rows = Foreign()
    with pytest.raises(UsageError, match="something else"):
        open_rows(rows)
    assert rows.closed
