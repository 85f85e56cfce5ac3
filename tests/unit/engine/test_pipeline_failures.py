"""What goes wrong in a leg, and what the next leg finds: reads, budgets, dead letters, stuck runs, limits."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import (
    CannotResumeError,
    ErrorBudgetExceededError,
    NoProgressError,
    OrderError,
    PermanentError,
    PushbackError,
    RecordError,
    RunTimeoutError,
    StoppedError,
    SupersededError,
    TransientError,
    UsageError,
)
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, ErrorBudget, RateLimit, Timeouts
from airflow_batchkit.testing.doubles import FakeClock, MemorySource, NoConnections, made_up_records
from tests.support.legs import KEY, RUN, HurryingClock, Recorder, World, at

ALL = [record.id for record in made_up_records(45)]
ONCE = BatchRetry(max_tries=1)


def odd_fails(document: dict[str, Any]) -> dict[str, Any]:
    if document["id"] % 2:
        raise RecordError("odd")
    return document


# reading


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

    with pytest.raises(StoppedError, match="in the middle of a window .*PIT lost") as caught:
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


# error budget and dead letters


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

    with pytest.raises(ErrorBudgetExceededError, match="record '1' of a cannot be processed .* no place for"):
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


# stuck legs and pauses


def test_a_run_that_is_stuck_pauses_longer_and_then_fails() -> None:
    """60 s, 120 s, then the third failure at one cursor counts as a failure, and the count begins anew."""
    world = World(batch_retry=ONCE)
    world.target.script.fail("write", TransientError("503"), times=99)
    pauses = []
    for _ in range(2):
        with pytest.raises(StoppedError, match="TransientError: 503") as caught:
            world.run()
        pauses.append(caught.value.resume_after)

    with pytest.raises(TransientError, match="^503$"):
        world.run()

    assert pauses == [60.0, 120.0]
    assert world.stood.stuck_legs == 0
    assert world.stood.status == "running", "the next try goes on"


def test_a_leg_that_moved_is_not_stuck() -> None:
    """Any number of transient failures is sat out as long as the cursor moves between them."""
    world = World({"a": made_up_records(100)}, batch_retry=ONCE, clock=HurryingClock())
    for number in range(2, 40, 2):
        world.target.script.fail("write", TransientError("503"), at=number)
    job = world.job(
        batch=BatchPolicy(max_records=10), sink=type(world.sink)(target=world.target, idempotent=False)
    )
    report = world.run_to_end(job, max_stuck_legs=2)

    assert report.legs > 8
    assert len(world.ids) == 100


def test_a_stop_after_progress_ends_being_stuck() -> None:
    """Failures count only in a row at one cursor: a leg that moved and was stopped is between them."""
    world = World(batch_retry=ONCE, clock=HurryingClock(), sink={"idempotent": False})
    world.target.script.fail("write", TransientError("503"), at=1, times=2)
    world.target.script.fail("write", StoppedError("deploy"), at=4)
    for _ in range(3):
        with pytest.raises(StoppedError):
            world.run()

    assert world.stood.counts.read == 10
    assert world.stood.stuck_legs == 0


def test_a_server_that_asks_for_a_longer_pause_gets_it() -> None:
    """The pause between two legs is never shorter than what the other side asked for."""
    world = World(batch_retry=ONCE)
    world.target.script.fail("write", PushbackError("429", 59.0))
    with pytest.raises(StoppedError) as caught:
        world.run(max_wait_in_slot=1.0)
    assert caught.value.resume_after == 60.0

    world.target.script.fail("write", PushbackError("429", 500.0), at=world.target.script.calls("write") + 1)
    with pytest.raises(StoppedError) as caught:
        world.run()
    assert caught.value.resume_after == 500.0


def test_a_run_has_at_most_so_many_legs() -> None:
    """The last allowed leg does not come back by itself."""
    world = World(batch_retry=ONCE)
    world.target.script.fail("write", TransientError("503"), times=99)
    with pytest.raises(StoppedError):
        world.run(max_legs=2, max_stuck_legs=9)
    with pytest.raises(TransientError):
        world.run(max_legs=2, max_stuck_legs=9)


# the checkpoint


def test_restart_begins_anew_also_over_a_damaged_checkpoint() -> None:
    """Whatever is there is not read; without --restart the damage is named."""
    world = World()
    world.store.values[KEY] = "{damaged"
    recorder = Recorder()

    with pytest.raises(CannotResumeError, match="damaged"):
        world.run(listeners=[recorder])
    assert [type(error) for error in recorder.named("failure")] == [CannotResumeError]
    assert world.run(identity=at("", restart=True)).counts["read"] == 45


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("source", "query"),
        ("transform", "transform"),
        ("both", "query, transform"),
    ],
)
def test_a_changed_job_is_refused_by_name(change: str, named: str) -> None:
    """What differs is named, and how to begin anew; nothing is claimed, read or written."""
    world = World(batch_retry=ONCE)
    world.target.script.fail("write", TransientError("503"), times=9)
    with pytest.raises(StoppedError):
        world.run()
    stored, owner = world.store.values[KEY], world.target.owner
    changed: dict[str, Any] = {}
    if change in {"source", "both"}:
        changed["source"] = MemorySource(
            partitions=world.source.partitions,
            fingerprints={"source": "memory", "query": "other", "sort": "position"},
        )
    if change in {"transform", "both"}:
        changed["transform"] = odd_fails

    with pytest.raises(CannotResumeError, match=rf"changed since the checkpoint: {named}; .*restart"):
        world.run(world.job(**changed))

    assert world.store.values[KEY] == stored
    assert world.target.owner == owner


def test_a_source_with_fewer_partitions_is_refused() -> None:
    """A cursor's partition numbers mean something else then."""
    world = World(
        {f"p{number}": made_up_records(9, prefix=f"{number}-") for number in range(4)},
        batch_retry=ONCE,
        readers=4,
        clock=HurryingClock(),
    )
    world.target.script.fail("write", TransientError("503"), at=3)
    with pytest.raises(StoppedError):
        world.run()
    assert world.stood.frontier.next == 4

    with pytest.raises(CannotResumeError, match="fewer partitions"):
        world.run(world.job(source=MemorySource(partitions={"p0": made_up_records(9)})))


def test_a_checkpoint_that_is_too_old_is_refused() -> None:
    """Eight days after the last save the run does not go on by itself."""
    clock = FakeClock()
    world = World(batch_retry=ONCE, clock=clock)
    world.target.script.fail("write", TransientError("503"), times=9)
    with pytest.raises(StoppedError):
        world.run()
    clock.advance(8 * 86_400)

    with pytest.raises(CannotResumeError, match="8 days old, at most 7"):
        world.run()


def test_a_store_that_fails_for_a_while_is_waited_for() -> None:
    """Loads and saves are tried again, and the listeners hear of it; no leg is lost."""
    world = World(clock=HurryingClock())
    world.store.script.fail("load", TransientError("503"), at=1, times=2)
    world.store.script.fail("save", TransientError("503"), at=2, times=3, when="after")
    recorder = Recorder()

    assert world.run(listeners=[recorder]).legs == 1
    assert {what for what, _, _ in recorder.named("retry")} == {
        "load of the checkpoint",
        "save of the checkpoint",
    }


def test_a_store_that_stays_away_ends_the_leg_before_more_is_done() -> None:
    """Never run on without checkpoints: what is durable already is saved by the next leg that can."""
    world = World(clock=HurryingClock(), sink={"idempotent": False})
    world.store.script.fail("save", TransientError("503"), at=2, times=99)

    with pytest.raises(StoppedError, match="503"):
        world.run()

    assert world.target.script.calls("write") == 1
    assert world.stood.counts.read == 0


# limits


def test_no_progress_for_too_long_ends_the_leg_and_shows_where_it_hangs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A read that hangs under a live process is noticed; the message has one line, the log has the stacks."""
    world = World(
        timeouts=Timeouts(no_progress=timedelta(seconds=5)), clock=HurryingClock(step=0.05), batch_retry=ONCE
    )
    world.log.script.block("page:a", at=2)

    with pytest.raises(StoppedError, match="no cursor moved for 5 s") as caught:
        world.run()

    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, NoProgressError)
    assert "-- batchkit-read-a" in caplog.text
    assert "hold" in caplog.text


def test_a_wait_for_the_rate_limit_is_no_lack_of_progress() -> None:
    """Waiting on purpose is left out of the account."""
    world = World(
        {"a": made_up_records(3)},
        source={"page_records": 1},
        throttle=RateLimit(records_per_second=2),
        timeouts=Timeouts(no_progress=timedelta(seconds=0.4)),
    )
    assert world.run().legs == 1


def test_a_run_that_works_for_too_long_fails() -> None:
    """The limit counts over all legs; a clear after raising it goes on."""
    clock = HurryingClock(step=0.2)
    world = World({"a": made_up_records(200)}, timeouts=Timeouts(run=timedelta(seconds=2)), clock=clock)
    with pytest.raises(RunTimeoutError, match=r"Timeouts.run"):
        world.run()
    with pytest.raises(RunTimeoutError):
        world.run()
    assert world.stood.active_seconds > 2

    report = world.run(world.job(timeouts=Timeouts(run=timedelta(hours=1))))
    assert report.counts["read"] == 200


# beginning


def test_a_source_that_cannot_be_opened_begins_nothing() -> None:
    """Nothing is claimed; the listeners hear of it; the error says what to change."""
    world = World()
    world.log.script.fail("open", UsageError("no index 'ordrs'"))
    recorder = Recorder()

    with pytest.raises(UsageError, match="ordrs"):
        world.run(listeners=[recorder])

    assert world.checkpoint is None
    assert world.target.owner is None
    assert recorder.named("start") == []
    assert [type(error) for error in recorder.named("failure")] == [UsageError]


class BrokenSinkError(UsageError):
    """No bucket."""


@pytest.mark.parametrize("part", ["sink", "dead_letters"])
def test_what_is_open_already_is_closed_when_the_next_cannot_be_opened(part: str) -> None:
    """A sink or a place for dead letters that is not there leaves no source open on the server."""
    world = World()

    class Broken:
        idempotent = True
        one_write_per_partition = False
        default_batch_bytes = 1
        default_batch_records = None

        def open(self, context: object) -> None:
            raise BrokenSinkError("no such bucket")

        def serialize(self) -> dict[str, Any]:
            return {}

    with pytest.raises(BrokenSinkError):
        world.run(world.job(**{part: Broken()}))

    assert world.log.closes == 1


def test_the_start_tells_every_setting_before_any_record_is_read() -> None:
    """Job, run, leg, mode, place of the checkpoint, settings, source, sink and environment."""
    recorder = Recorder()
    World().run(listeners=[recorder], environment={"airflow": "3.3.2"})

    facts = recorder.named("start")[0]
    assert recorder.events[0][0] in {"saved", "start"}
    assert (facts["job"], facts["run"], facts["leg"], facts["mode"]) == ("job", "run-1", 1, "real")
    assert facts["total"] == "45"
    assert facts["checkpoint"] == "memory"
    assert facts["environment"] == {"airflow": "3.3.2"}
    assert facts["settings"]["batch"]["max_records"] == 10
    assert facts["source"] == {"source": "memory", "partitions": 1}


def test_a_publication_that_is_tried_again_is_told() -> None:
    """Retries after the loop reach the listeners as those in it do."""
    world = World()
    world.target.script.fail("publish", TransientError("503"), times=2)
    recorder = Recorder()

    world.run(listeners=[recorder])

    assert [what for what, _, _ in recorder.named("retry")] == ["publish", "publish"]
    assert len(world.target.history) == 1


def test_a_last_save_that_fails_does_not_hide_why_the_leg_ends(caplog: pytest.LogCaptureFixture) -> None:
    """The reason is raised; the failure of the save is in the log."""
    world = World()
    world.target.script.fail("write", PermanentError("403"))
    world.store.script.fail("save", TransientError("503"), at=2, times=99)

    with caplog.at_level(logging.ERROR), pytest.raises(PermanentError, match="403"):
        world.run()

    assert "the last save of this leg failed" in caplog.text


def test_a_leg_superseded_at_its_last_save_says_so() -> None:
    """It failed, but a newer leg took over meanwhile: that is what counts."""
    world = World()
    world.target.script.fail("write", PermanentError("403"))
    world.store.script.fail("load", SupersededError("404 from the state store"), at=2)

    with pytest.raises(SupersededError):
        world.run()
    assert world.target.owner is not None


def test_the_run_needs_no_settings_of_the_pipeline() -> None:
    """Stop, listeners, clock and log have defaults."""
    world = World()
    Pipeline(world.job(), identity=RUN, store=world.store, key=KEY, connections=NoConnections()).run()

    assert world.ids == ALL
