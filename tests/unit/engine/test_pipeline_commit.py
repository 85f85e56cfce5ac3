"""Rules 1 and 2: the window is the unit of commit, and one value holds all that is committed."""

from __future__ import annotations

import json
import threading
from itertools import pairwise
from typing import Any

import pytest
from typing_extensions import override

from airflow_batchkit.engine.checkpoint import MAX_BYTES, Checkpoint, decode
from airflow_batchkit.engine.exceptions import RecordError, StoppedError, TransientError
from airflow_batchkit.engine.failpoints import effect, probing
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, ErrorBudget
from airflow_batchkit.engine.types import record_size
from airflow_batchkit.testing.doubles import (
    LetterBox,
    MemoryStore,
    MemoryTarget,
    made_up_records,
)
from airflow_batchkit.testing.doubles.parts import chain, counting
from tests.support.legs import KEY, HurryingClock, Recorder, World

GENEROUS = ErrorBudget(max_dead_letters=1000)
ONCE = BatchRetry(max_tries=1)


def one_in_five_fails(document: dict[str, Any]) -> dict[str, Any] | None:
    """Give up every fifth record, filter every seventh."""
    if document["id"] % 5 == 0:
        raise RecordError("divisible by five")
    return None if document["id"] % 7 == 0 else document


class WitnessStore(MemoryStore):
    """Looks, at the moment of each save, whether sink and letters hold what the checkpoint counts."""

    def __init__(self, target: MemoryTarget, box: LetterBox) -> None:
        super().__init__()
        self._target = target
        self._box = box
        self.lies: list[str] = []

    @override
    def save(self, key: str, stored: str) -> None:
        checkpoint = decode(stored)
        if checkpoint.status != "completed":
            self._compare(checkpoint)
        super().save(key, stored)

    def _compare(self, checkpoint: Checkpoint) -> None:
        legs = chain(checkpoint.token, checkpoint.frontier, self._target.inherited)
        with effect("witness.look"):
            kept = dict(self._target.staged)
            letters = dict(self._box.staged)
        written = sum(len(kept[name]) for name in counting(kept, legs))
        if written != checkpoint.counts.written:
            self.lies.append(f"counts {checkpoint.counts.written} written, {written} are durable")
        given_up = sum(len(letters[name]) for name in counting(letters, legs))
        if given_up != checkpoint.counts.dead_lettered:
            self.lies.append(f"counts {checkpoint.counts.dead_lettered} dead letters, {given_up} are durable")


@pytest.mark.parametrize("style", ["records", "windows"])
@pytest.mark.parametrize("idempotent", [True, False])
def test_rule_1_checkpoint_counts_only_what_is_durable(style: str, *, idempotent: bool) -> None:
    """At every save, sink and dead letters already hold exactly what the checkpoint counts."""
    world = World(
        {"a": made_up_records(95), "b": made_up_records(40, first=200)},
        source={"style": style, "window_records": 30},
        sink={"idempotent": idempotent},
        clock=HurryingClock(),
        transform=one_in_five_fails,
        error_budget=GENEROUS,
        batch_retry=ONCE,
    )
    world.target.rejects = {"3", "201"}
    for number in (3, 9, 14):
        world.target.script.fail("write", TransientError("reset"), at=number)
    world.box.script.fail("put", TransientError("reset"), at=2)
    store = WitnessStore(world.target, world.box)

    report = world.run_to_end(world.job(dead_letters=world.letters), store=store, max_stuck_legs=20)

    assert store.lies == []
    assert len(store.history) > 5
    assert report.counts["read"] == 135
    assert report.legs > 1


def test_rule_1_dead_letters_are_durable_before_the_checkpoint_passes_them() -> None:
    """A window whose dead letters cannot be kept is not committed; its records are read again."""
    world = World(clock=HurryingClock(), transform=one_in_five_fails, error_budget=GENEROUS, batch_retry=ONCE)
    job = world.job(dead_letters=world.letters)
    world.box.script.fail("put", TransientError("no space"), at=2)

    with pytest.raises(StoppedError):
        world.run(job)
    read_at_first = world.stood.counts.read
    report = world.run_to_end(job)

    assert read_at_first < 45
    assert report.counts["dead_lettered"] == len(world.box.settled) == 9


def test_rule_1_several_batches_of_a_window_are_one_save() -> None:
    """A window of three batches moves the cursor once, to its end."""
    world = World(
        {"a": made_up_records(60)},
        source={"style": "windows", "window_records": 30},
        sink={"idempotent": False},
    )
    world.run()

    saved = world.store.checkpoints(KEY)
    cursors = {json.dumps(progress.cursor) for checkpoint in saved for progress in checkpoint.frontier.open}
    assert cursors == {'{"position": 30}'}
    assert {checkpoint.counts.read for checkpoint in saved} == {0, 30, 60}


def test_rule_1_an_unfinished_window_is_done_again_under_a_new_token() -> None:
    """What a leg wrote of a window that it did not finish is not published."""
    world = World(
        {"a": made_up_records(30)}, source={"style": "windows", "window_records": 30}, batch_retry=ONCE
    )
    world.target.script.fail("write", TransientError("gone"), at=3)

    with pytest.raises(StoppedError):
        world.run()
    staged_by_the_first = {token for token, _ in world.target.staged}
    world.run()

    assert len(staged_by_the_first) == 1
    assert world.ids == [str(number) for number in range(1, 31)]
    assert world.target.published is not None
    assert world.target.published.parts == 3


def test_rule_2_counts_and_budget_ride_in_the_checkpoint() -> None:
    """A leg that fails neither forgets a count nor fills the error budget again."""
    world = World(clock=HurryingClock(), transform=one_in_five_fails, error_budget=GENEROUS, batch_retry=ONCE)
    job = world.job(dead_letters=world.letters)
    world.target.script.fail("write", TransientError("reset"), at=2)

    with pytest.raises(StoppedError):
        world.run(job)
    report = world.run(job)

    assert report.legs == 2
    assert report.counts["read"] == 45
    assert report.counts["dead_lettered"] == 9
    assert report.counts["filtered"] == 5
    assert report.counts["written"] == 31
    assert world.stood.errors == {"RecordError": 9}


def test_rule_2_error_types_of_a_repeated_window_count_once() -> None:
    """The most frequent errors are counted with their window, not with each try of it."""
    world = World(
        {"a": made_up_records(30), "b": made_up_records(30, prefix="b-")},
        source={"style": "windows", "window_records": 30},
        clock=HurryingClock(),
        transform=one_in_five_fails,
        error_budget=GENEROUS,
        batch_retry=ONCE,
    )
    job = world.job(dead_letters=world.letters)
    world.target.script.fail("write", TransientError("reset"), at=5)

    world.run_to_end(job)

    assert world.stood.errors == {"RecordError": 12}


def test_rule_2_saves_at_most_once_a_second() -> None:
    """Where repeating a window does no harm, the store is spared: no save for each of 100 windows."""
    world = World({"a": made_up_records(100)}, batch=BatchPolicy(max_records=1))
    world.run()

    assert len(world.store.history) <= 4


def test_rule_2_saves_what_is_left_when_the_second_is_over() -> None:
    """A window that ended less than a second after a save is saved soon, also while nothing else moves."""
    world = World({"a": made_up_records(30)}, source={"page_records": 10})
    blocked = world.log.script.block("page:a", at=3)
    recorder = Recorder()
    leg = threading.Thread(target=lambda: world.run(listeners=[recorder]))
    leg.start()
    assert blocked.wait_until_reached()
    for _ in range(300):
        if world.stood.counts.read == 20:
            break
        threading.Event().wait(0.02)
    saved = world.stood.counts.read
    blocked.release()
    leg.join(10)

    assert saved == 20
    assert recorder.named("saved")[:2] == [0, 20], "every save is told, that of the claim too"


def test_rule_2_saves_after_every_batch_of_a_sink_that_is_not_idempotent() -> None:
    """Where a batch done twice leaves two of it, at most one batch is done twice."""
    world = World({"a": made_up_records(100)}, sink={"idempotent": False})
    world.run()

    read = [checkpoint.counts.read for checkpoint in world.store.checkpoints(KEY)]
    assert set(range(0, 101, 10)) <= set(read)


def test_rule_2_a_sink_that_is_not_idempotent_gets_one_batch_at_a_time() -> None:
    """The next batch is handed over only when the one before it is in the checkpoint."""
    world = World(
        {"a": made_up_records(60), "b": made_up_records(60, prefix="b-")}, sink={"idempotent": False}
    )
    order: list[str] = []
    with probing(lambda name, when: order.append(name) if when == "after" else None):
        world.run()

    assert order.count("sink.put") == 12
    steps = [name for name in order if name in {"sink.put", "checkpoint.save"}]
    assert all(pair != ("sink.put", "sink.put") for pair in pairwise(steps))


def test_rule_2_checkpoint_is_one_small_json_value() -> None:
    """Everything is in one value under 4 KB, at every moment of a run with eight open partitions."""
    world = World(
        {f"partition-{number}": made_up_records(50, prefix=f"{number}-") for number in range(12)},
        clock=HurryingClock(),
        readers=8,
        transform=one_in_five_fails,
        error_budget=GENEROUS,
    )
    world.run(world.job(dead_letters=world.letters))

    assert {key for key, _ in world.store.history} == {KEY}
    assert max(len(stored) for _, stored in world.store.history) < MAX_BYTES
    assert all(json.loads(stored) for _, stored in world.store.history)


def test_rule_2_state_of_source_and_sink_comes_back_to_a_leg_after_one_that_moved_nothing() -> None:
    """What source and sink want back is saved when the leg claims the run, not only when a window ends."""
    world = World({"a": made_up_records(10)}, batch_retry=ONCE)
    world.target.script.fail("write", TransientError("reset"), times=2)

    for _ in range(2):
        with pytest.raises(StoppedError):
            world.run()

    assert [context.state for context in world.log.opened] == [{}, {"legs": 1}]
    assert world.stood.sink == {"legs": 2}


def test_a_batch_that_a_page_does_not_fit_any_more_is_closed_before_it() -> None:
    """A window of several pages: what is too large for the rest of a batch begins the next one."""
    records = made_up_records(6, padding=1_000)
    world = World(
        {"a": records},
        source={"style": "windows", "page_records": 1, "window_records": 6},
        batch=BatchPolicy(max_bytes=int(2.5 * record_size(records[0]))),
    )
    world.run()

    assert world.target.published is not None
    assert world.target.published.parts == 3
    assert world.ids == [record.id for record in records]


def test_a_slow_transform_does_not_keep_what_is_durable_from_being_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two of its records the loop commits what was written meanwhile."""
    monkeypatch.setattr("airflow_batchkit.engine.transform._BETWEEN_SECONDS", 0.0)
    saved: list[int] = []

    def slow(document: dict[str, Any]) -> dict[str, Any]:
        if not any(saved):
            threading.Event().wait(0.01)
            saved.append(world.stood.counts.read)
        return document

    world = World(
        {"a": made_up_records(60)},
        source={"page_records": 60},
        sink={"idempotent": False},
        transform=slow,
        batch=BatchPolicy(max_records=20),
    )
    world.run()

    assert saved[-1] == 20
    assert 20 < len(saved) < 60
