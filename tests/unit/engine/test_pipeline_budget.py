"""Records that are given up: how many may be, and that none is lost."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import (
    CannotResumeError,
    ErrorBudgetExceededError,
    RecordError,
    StoppedError,
)
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, ErrorBudget
from airflow_batchkit.testing.doubles import made_up_records
from tests.support.legs import HurryingClock, Recorder, World, at


def odd_fails(document: dict[str, Any]) -> dict[str, Any]:
    """Give up every other record."""
    if document["id"] % 2:
        raise RecordError("odd")
    return document


@pytest.mark.fault("poison", at="engine")
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
        match=r"11 dead letters, 10 allowed .*RecordError × 11 \(such as record '1'\); the dead letters are",
    ):
        world.run(world.job(dead_letters=world.letters))

    assert world.stood.status == "failed"
    assert world.stood.counts.dead_lettered == 11
    assert sum(len(letters) for letters in world.box.staged.values()) >= 11


def test_a_run_over_a_part_shows_its_letters_nowhere() -> None:
    """So its message names no place."""
    world = World({"a": made_up_records(4)}, transform=odd_fails, batch=BatchPolicy(max_records=2))
    with pytest.raises(ErrorBudgetExceededError) as caught:
        world.run(world.job(dead_letters=world.letters, max_batches=1))
    assert str(caught.value) == (
        "error budget exceeded: 1 dead letters, 0 allowed (max_dead_letters); most frequent: RecordError × 1 "
        "(such as record '1'); a clear of the task opens a new budget period"
    )


def test_one_message_says_which_limit_why_and_where() -> None:
    """The limit, the three most frequent errors with a record of each, the place, the command, the way on."""

    def fails(document: dict[str, Any]) -> dict[str, Any]:
        number = document["id"]
        errors = {1: ValueError, 2: KeyError, 3: TypeError, 4: OSError}
        raise errors[min(number, 4) if number < 5 else 1 + number % 3]("no content of mine: \n")

    world = World({"a": made_up_records(10)}, transform=fails, error_budget=ErrorBudget(max_dead_letters=9))
    with pytest.raises(ErrorBudgetExceededError) as caught:
        world.run(world.job(name="my dag.task", dead_letters=world.letters))

    assert str(caught.value) == (
        "error budget exceeded: 10 dead letters, 9 allowed (max_dead_letters); most frequent: "
        "ValueError × 3 (such as record '1'), KeyError × 3 (such as record '2'), "
        "TypeError × 3 (such as record '3'); "
        "the dead letters are at memory://letters; to see them: "
        "batchkit dead-letters show memory://letters --job 'my dag.task' --run run-1; "
        "a clear of the task opens a new budget period"
    )


def test_half_and_four_fifths_of_the_budget_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody who watches learns in time that the budget runs out, once at 50 % and once at 80 %."""
    recorder = Recorder()
    world = World(
        {"a": made_up_records(20)},
        transform=odd_fails,
        batch=BatchPolicy(max_records=2),
        sink={"idempotent": False},
        error_budget=ErrorBudget(max_dead_letters=10),
    )
    world.run(world.job(dead_letters=world.letters), listeners=[recorder])

    assert recorder.named("budget") == [(0.5, 5), (0.8, 8)]
    said = [record.getMessage() for record in caplog.records if "error budget" in record.getMessage()]
    assert said == [
        "50% of the error budget is used: 5 dead letters",
        "80% of the error budget is used: 8 dead letters",
    ]


def test_warnings_are_not_said_again_by_the_next_leg(caplog: pytest.LogCaptureFixture) -> None:
    """A run of many legs warns once of each part of its budget; after a clear it warns again."""
    recorder = Recorder()
    world = World(
        {"a": made_up_records(60)},
        transform=odd_fails,
        batch=BatchPolicy(max_records=2),
        clock=HurryingClock(),
        sink={"idempotent": False},
        error_budget=ErrorBudget(max_dead_letters=20),
    )
    for number in range(2, 60):
        world.target.script.fail("write", StoppedError("a deploy"), at=2 * number)
    job = world.job(dead_letters=world.letters)
    with pytest.raises(ErrorBudgetExceededError):
        world.run_to_end(job, listeners=[recorder])
    assert world.stood.legs > 8
    assert recorder.named("budget") == [(0.5, 10), (0.8, 16)]

    world.target.owner = None
    recorder.events.clear()
    world.run_to_end(job, identity=at("cleared"), listeners=[recorder])

    assert [dead_lettered for _, dead_lettered in recorder.named("budget")] == []
    assert world.stood.counts.dead_lettered == 30
    said = [record.getMessage() for record in caplog.records if "error budget" in record.getMessage()]
    assert len(said) == 2


def test_a_new_period_warns_anew() -> None:
    """What was said before the clear was said of another budget."""
    recorder = Recorder()
    world = World(
        {"a": made_up_records(60)},
        transform=odd_fails,
        batch=BatchPolicy(max_records=2),
        sink={"idempotent": False},
        clock=HurryingClock(),
        error_budget=ErrorBudget(max_dead_letters=14),
    )
    job = world.job(dead_letters=world.letters)
    with pytest.raises(ErrorBudgetExceededError):
        world.run(job, listeners=[recorder])
    with pytest.raises(ErrorBudgetExceededError):
        world.run(job, identity=at("cleared"), listeners=[recorder])

    assert [dead_lettered for _, dead_lettered in recorder.named("budget")] == [7, 12, 7, 12]


def test_each_class_has_its_own_budget_over_all_tries_and_a_clear_fills_it_again() -> None:
    """Ten of the class may pass in all legs together; a retry opens nothing, a clear opens a new period."""
    world = World(
        {"a": made_up_records(40)},
        transform=odd_fails,
        batch=BatchPolicy(max_records=2),
        batch_retry=BatchRetry(max_tries=1),
        sink={"idempotent": False},
        clock=HurryingClock(),
        error_budget=ErrorBudget(max_dead_letters=100, max_per_class={"record": 10}),
    )
    world.target.script.fail("write", StoppedError("a deploy"), at=7)
    job = world.job(dead_letters=world.letters)
    with pytest.raises(StoppedError):
        world.run(job)
    assert world.stood.classes == {"record": 6}
    said = r"11 dead letters of class record, 10 allowed \(max_per_class\); most frequent: RecordError × 11"
    with pytest.raises(ErrorBudgetExceededError, match=said):
        world.run(job)
    with pytest.raises(ErrorBudgetExceededError, match=said):
        world.run(job)
    assert world.stood.classes == {"record": 11}

    report = world.run(job, identity=at("cleared"))

    assert report.counts["dead_lettered"] == len(world.box.settled) == 20
    assert world.stood.spent.classes == {"record": 9}


def test_what_a_class_that_is_not_named_may_do() -> None:
    """Where only classes have a budget, the others have none."""
    world = World(transform=odd_fails, error_budget=ErrorBudget(max_per_class={"size": 10}))

    with pytest.raises(ErrorBudgetExceededError, match=r"dead letters of other classes, 0 allowed"):
        world.run(world.job(dead_letters=world.letters))


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


def test_the_message_without_a_place_is_one_line() -> None:
    """What a transform raises may have several; and what it says may hold control characters of the data."""

    def fails(document: dict[str, Any]) -> dict[str, Any]:
        raise ValueError(f"first line\nsecond \x1b[31mline of {document['id']}")

    with pytest.raises(ErrorBudgetExceededError) as caught:
        World(transform=fails).run()

    assert str(caught.value).isprintable()
    assert r"(ValueError: first line\nsecond \x1b[31mline of 1), and there is no place" in str(caught.value)


def test_a_fraction_is_asked_from_the_smallest_sample_on() -> None:
    """Half of the records fail: allowed up to 19 records, and over at the end of the window with the 20th."""
    world = World(
        transform=odd_fails, error_budget=ErrorBudget(max_fraction=0.3, min_sample=20), clock=HurryingClock()
    )
    with pytest.raises(ErrorBudgetExceededError, match=r"of \d+ records \(50.00%\), 30.00% allowed"):
        world.run(world.job(dead_letters=world.letters))

    assert world.stood.counts.read >= 20
