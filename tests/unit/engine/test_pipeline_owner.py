"""Rule 7: progress belongs to one leg at a time; an older one stops and changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from typing_extensions import override

from airflow_batchkit.engine.checkpoint import decode, encode
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    PermanentError,
    PushbackError,
    SupersededError,
    TargetHeldError,
    TransientError,
)
from airflow_batchkit.engine.job import Job
from airflow_batchkit.testing.doubles import MemoryStore, made_up_records
from airflow_batchkit.testing.doubles.sink import OpenMemorySink
from airflow_batchkit.testing.script import Block
from tests.support.legs import KEY, HurryingClock, Recorder, World, at


class BusyStore(MemoryStore):
    """Somebody else saves between any two looks."""

    @override
    def load(self, key: str) -> str | None:
        for name, stored in self.values.items():
            checkpoint = decode(stored)
            checkpoint.saved_at += 1.0
            self.values[name] = encode(checkpoint)
        return super().load(key)


@contextmanager
def frozen(world: World, block: Block, job: Job | None = None) -> Iterator[list[BaseException]]:
    """Run a leg until it hangs in a call; when the ``with`` block ends, let it go on to its end.

    :returns: what it failed with, once it has ended.
    """
    ended: list[BaseException] = []

    def leg() -> None:
        try:
            world.run(job)
        except BatchkitError as error:
            ended.append(error)

    thread = threading.Thread(target=leg, daemon=True)
    thread.start()
    assert block.wait_until_reached()
    yield ended
    block.release()
    thread.join(10)
    assert not thread.is_alive()


def thawed(world: World, call: str, *, number: int = 1, when: str = "before") -> list[BaseException]:
    """Freeze a leg in a call to the sink, run another to its end, let the first go on; say how it ended."""
    block = world.target.script.block(call, at=number, when="before" if when == "before" else "after")
    with frozen(world, block) as ended:
        world.run()
    return ended


@pytest.mark.fault("zombie", at="engine")
@pytest.mark.parametrize(
    ("call", "number", "when"),
    [
        ("write", 1, "before"),
        ("write", 4, "after"),
        ("renew", 2, "before"),
        ("publish", 1, "before"),
    ],
)
def test_rule_7_a_thawed_leg_changes_nothing(call: str, number: int, when: str) -> None:
    """A newer leg finished the run meanwhile: the older one is superseded and what is published stays."""
    world = World(clock=HurryingClock())
    ended = thawed(world, call, number=number, when=when)

    assert [type(error) for error in ended] == [SupersededError]
    assert len(world.target.history) == 1
    assert world.ids == [record.id for record in made_up_records(45)]
    assert world.stood.status == "completed"
    assert world.target.staged == {} or call == "write"


def test_rule_7_a_leg_thawed_after_its_publication_leaves_the_newer_legs_checkpoint() -> None:
    """It published; before it could say so another leg came and completed: the stored report stays."""
    world = World()
    ended = thawed(world, "publish", when="after")

    assert [type(error) for error in ended] == [SupersededError]
    assert len(world.target.history) == 1
    assert world.stood.legs == 2


def test_rule_7_a_checkpoint_that_names_another_leg_stops_this_one() -> None:
    """Found at the next save, before anything is written over the newer leg's checkpoint."""
    world = World(clock=HurryingClock())
    block = world.target.script.block("write", at=1)
    ended: list[BaseException] = []

    def older() -> None:
        try:
            world.run()
        except SupersededError as error:
            ended.append(error)

    thread = threading.Thread(target=older, daemon=True)
    thread.start()
    assert block.wait_until_reached()
    world.store.values[KEY] = encode(msgspec.structs.replace(world.stood, token="f" * 16))
    block.release()
    thread.join(10)

    assert len(ended) == 1
    assert "f" * 16 in str(ended[0])
    assert world.stood.token == "f" * 16
    assert world.target.published is None


@pytest.mark.fault("zombie", at="engine")
def test_rule_7_a_leg_that_froze_before_its_claim_leaves_the_newer_legs_checkpoint() -> None:
    """It has the target, not yet the checkpoint; the run is complete when it wakes up, and stays so."""
    world = World()
    job = world.job(dead_letters=world.letters)
    with frozen(world, world.box.script.block("start"), job) as ended:
        world.run(job)

    assert [type(error) for error in ended] == [SupersededError]
    assert world.stood.status == "completed"
    assert world.run(job).legs == 1


@pytest.mark.fault("zombie", at="engine")
@pytest.mark.fault("two-at-once", at="engine")
@pytest.mark.parametrize("completes", [True, False])
def test_rule_7_a_leg_that_froze_before_it_took_the_target_goes_on_from_what_is_saved_now(
    *, completes: bool
) -> None:
    """It is the newest leg then: it takes the target over, and looks at the checkpoint again."""
    world = World(clock=HurryingClock())
    job = world.job(dead_letters=world.letters)
    with frozen(world, world.log.script.block("open"), job) as ended:
        if completes:
            world.run(job)
        else:
            world.target.script.fail("write", PermanentError("403"), at=3)
            with pytest.raises(PermanentError):
                world.run(job)

    assert ended == []
    assert world.ids == [record.id for record in made_up_records(45)]
    assert len(world.target.history) == 1
    assert world.stood.status == "completed"
    assert world.target.owner is None


def test_rule_7_a_leg_that_finds_another_checkpoint_at_each_look_gives_up_for_now() -> None:
    """Others save faster than it can begin: it fails in a way that may pass, and writes nothing."""
    world = World()
    world.target.script.fail("write", PermanentError("403"))
    with pytest.raises(PermanentError):
        world.run()
    store = BusyStore()
    store.values.update(world.store.values)

    with pytest.raises(TransientError, match="was saved by another leg while this one began"):
        world.run(store=store)

    assert store.history == []
    assert world.target.owner is None


@pytest.mark.fault("checkpoint-damaged", at="engine")
def test_rule_7_a_checkpoint_that_was_removed_stops_the_leg() -> None:
    """Somebody cleared it while the run went on: going on would bring it back."""
    world = World(clock=HurryingClock())
    block = world.target.script.block("write", at=1)
    ended: list[BaseException] = []

    def leg() -> None:
        try:
            world.run()
        except SupersededError as error:
            ended.append(error)

    thread = threading.Thread(target=leg, daemon=True)
    thread.start()
    assert block.wait_until_reached()
    world.store.delete(KEY)
    block.release()
    thread.join(10)

    assert "removed" in str(ended[0])
    assert world.checkpoint is None


def test_rule_7_a_superseded_leg_tells_its_listeners_and_saves_nothing() -> None:
    """It is not saved on the way out either: the checkpoint is the newer leg's."""
    world = World(clock=HurryingClock())
    world.target.script.fail("renew", SupersededError("leg 2 owns the target"), at=1)
    recorder = Recorder()

    with pytest.raises(SupersededError):
        world.run(listeners=[recorder])

    assert world.stood.counts.read == 0
    assert [type(error) for error in recorder.named("failure")] == [SupersededError]
    assert world.target.owner is not None, "what is not ours any more is not released"


@pytest.mark.fault("two-at-once", at="engine")
def test_rule_7_a_target_that_another_run_holds_is_refused_by_name() -> None:
    """The other run is named, nothing is read or written, and no checkpoint is left."""
    world = World()
    world.target.owner = ("run-0", "0" * 16)
    recorder = Recorder()

    with pytest.raises(TargetHeldError, match="run-0") as caught:
        world.run(listeners=[recorder])

    assert caught.value.retry_after == 60.0
    assert world.checkpoint is None
    assert world.log.reads == []
    assert recorder.named("failure") == [caught.value]


def test_rule_7_the_target_is_released_after_success_and_after_a_failure_for_good() -> None:
    """The next run of the job need not wait for a lease to end."""
    world = World()
    world.run()
    assert world.target.owner is None

    world.target.script.fail("write", PermanentError("403"), at=world.target.script.calls("write") + 1)
    with pytest.raises(PermanentError):
        world.run(identity=at("2"))
    assert world.target.owner is None


def test_rule_7_the_target_is_kept_while_the_run_is_to_go_on() -> None:
    """Between two legs of one run no other run may slip in."""
    world = World()
    world.target.script.fail("write", TransientError("reset"), times=99)

    with pytest.raises(Exception, match="reset"):
        world.run()

    assert world.target.owner == ("run-1", world.stood.token)


def test_rule_7_a_leg_that_cannot_begin_does_not_keep_the_target() -> None:
    """The dead letters' place cannot be written: the target is free again at once."""
    world = World()
    world.box.script.fail("start", PermanentError("no such bucket"))

    with pytest.raises(PermanentError, match="no such bucket"):
        world.run(world.job(dead_letters=world.letters))

    assert world.target.owner is None
    assert world.checkpoint is None


def test_rule_7_a_lease_that_cannot_be_renewed_at_once_is_tried_again() -> None:
    """One 503 at a renewal costs a moment, not the leg."""
    world = World(clock=HurryingClock())
    world.target.script.fail("renew", TransientError("503"), at=1, times=2)
    recorder = Recorder()

    assert world.run(listeners=[recorder]).legs == 1
    assert recorder.named("retry")


def test_rule_7_the_lease_is_renewed_while_no_window_ends() -> None:
    """A window that takes minutes does not lose the target."""
    world = World({"a": made_up_records(10)}, clock=HurryingClock(step=3.0))
    block = world.target.script.block("write")
    thread = threading.Thread(target=world.run, daemon=True)
    thread.start()
    assert block.wait_until_reached()
    for _ in range(500):
        if world.target.script.calls("renew") >= 2:
            break
        threading.Event().wait(0.01)
    renewals = world.target.script.calls("renew")
    block.release()
    thread.join(10)

    assert renewals >= 2


def test_the_lease_lasts_until_the_leg_comes_back() -> None:
    """A leg that ends for ten minutes asks the target for at least that long."""
    asked: list[float] = []
    world = World()
    world.target.script.fail("write", PushbackError("429", 600.0))
    renew = OpenMemorySink.renew

    def noting(self: OpenMemorySink, *, for_seconds: float = 0.0) -> None:
        asked.append(for_seconds)
        renew(self, for_seconds=for_seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenMemorySink, "renew", noting)
        with pytest.raises(Exception, match="429"):
            world.run()

    assert asked[-1] == 600.0
