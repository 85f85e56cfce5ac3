"""Records that are given up: how many may be, and that none is lost."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import (
    CannotResumeError,
    ErrorBudgetExceededError,
    RecordError,
)
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget
from airflow_batchkit.testing.doubles import made_up_records
from tests.support.legs import HurryingClock, World, at


def odd_fails(document: dict[str, Any]) -> dict[str, Any]:
    """Give up every other record."""
    if document["id"] % 2:
        raise RecordError("odd")
    return document


def test_the_eleventh_dead_letter_fails_the_run_and_is_kept() -> None:
    """Ten may pass; with the eleventh the save is made, and then the run fails and says what is frequent."""
    world = World(
        {"a": made_up_records(40)},
        transform=odd_fails,
        batch=BatchPolicy(max_records=2),
        sink={"idempotent": False},
        error_budget=ErrorBudget(max_dead_letters=10),
    )
    with pytest.raises(
        ErrorBudgetExceededError,
        match=r"11 dead letters, 10 allowed .*RecordError × 11; a clear of the task",
    ):
        world.run(world.job(dead_letters=world.letters))

    assert world.stood.status == "failed"
    assert world.stood.counts.dead_lettered == 11
    assert sum(len(letters) for letters in world.box.staged.values()) >= 11


def test_half_and_four_fifths_of_the_budget_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody who watches learns in time that the budget runs out, once at 50 % and once at 80 %."""
    world = World(
        {"a": made_up_records(20)},
        transform=odd_fails,
        batch=BatchPolicy(max_records=2),
        sink={"idempotent": False},
        error_budget=ErrorBudget(max_dead_letters=10),
    )
    world.run(world.job(dead_letters=world.letters))

    said = [record.getMessage() for record in caplog.records if "error budget" in record.getMessage()]
    assert said == [
        "50% of the error budget is used: 5 dead letters",
        "80% of the error budget is used: 8 dead letters",
    ]


def test_a_letter_says_where_its_window_began() -> None:
    """From the cursor in a letter a person finds the stretch of the source that it came from."""
    world = World(
        {"a": made_up_records(4)},
        transform=odd_fails,
        batch=BatchPolicy(max_records=2),
        error_budget=ErrorBudget(max_dead_letters=4),
    )
    world.run(world.job(dead_letters=world.letters))

    first, second = world.box.settled
    assert first.cursor is None
    assert second.cursor is not None


def test_a_retry_does_not_fill_the_budget_again_and_a_clear_does() -> None:
    """Airflow's retry fails at once, opening nothing; a person's clear opens a new period and goes on."""
    world = World(
        {"a": made_up_records(40)},
        transform=odd_fails,
        error_budget=ErrorBudget(max_dead_letters=10),
        clock=HurryingClock(),
    )
    job = world.job(dead_letters=world.letters)
    with pytest.raises(ErrorBudgetExceededError):
        world.run(job)
    opened = len(world.log.opened)
    with pytest.raises(ErrorBudgetExceededError, match="a clear of the task opens a new budget period"):
        world.run(job)
    assert len(world.log.opened) == opened

    report = world.run(job, identity=at("cleared"))

    assert report.counts["dead_lettered"] == len(world.box.settled) == 20
    assert world.ids == [str(number) for number in range(2, 41, 2)]


def test_without_a_place_for_dead_letters_the_first_one_fails_and_no_record_is_lost() -> None:
    """The cursor does not pass a record that nobody keeps: mended, the run goes on with it."""
    world = World(transform=odd_fails)

    with pytest.raises(
        ErrorBudgetExceededError, match=r"record '1' of a cannot be processed .* no place for"
    ):
        world.run()
    assert world.stood.counts.read == 0
    world.target.owner = None

    world.log.opened.clear()
    with pytest.raises(CannotResumeError, match="transform"):
        world.run(world.job(transform=None))
    report = world.run(world.job(transform=None), identity=at("2", when_cleared="restart"))
    assert report.counts["read"] == 45


def test_a_fraction_is_asked_from_the_smallest_sample_on() -> None:
    """Half of the records fail: allowed up to 19 records, and over at the end of the window with the 20th."""
    world = World(
        transform=odd_fails, error_budget=ErrorBudget(max_fraction=0.3, min_sample=20), clock=HurryingClock()
    )
    with pytest.raises(ErrorBudgetExceededError, match=r"of \d+ records \(50.00%\), 30.00% allowed"):
        world.run(world.job(dead_letters=world.letters))

    assert world.stood.counts.read >= 20
