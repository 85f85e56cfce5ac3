"""Keeping the checkpoint: at most once a second, only while it is ours, patiently."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_batchkit.engine.checkpoint import Checkpoint, encode
from airflow_batchkit.engine.exceptions import CannotResumeError, SupersededError, TransientError
from airflow_batchkit.engine.job import RunIdentity
from airflow_batchkit.engine.keeping import ChangedMeanwhileError, CheckpointKeeper
from airflow_batchkit.engine.resumption import decide
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.engine.writing import Retrying
from airflow_batchkit.testing.doubles import FakeClock, MemoryStore
from tests.support.legs import QUICK


def checkpoint(leg: str = "a") -> Checkpoint:
    """Make a checkpoint of a leg."""
    return Checkpoint(run="r", token=leg, generation="g", started_at=0.0)


class Desk:
    """A keeper, and what it works with."""

    def __init__(self, **changes: Any) -> None:
        self.store = MemoryStore()
        self.clock = FakeClock()
        self.renewals = 0
        self.told: list[float] = []
        retrying = Retrying(
            QUICK, total_seconds=60.0, stop=Stop(), max_wait_in_slot=60.0, notify=lambda _: None
        )
        self.keeper = CheckpointKeeper(
            self.store,
            "key",
            clock=self.clock,
            retrying=retrying,
            saved=lambda saved: self.told.append(saved.saved_at),
            **changes,
        )
        self.mine = checkpoint()
        self.keeper.claim(self.mine, confirm=lambda: None)

    def save_if_due(self) -> bool:
        """Do what the loop does at the end of a window."""
        return self.keeper.save_if_due(self.mine, before=self._renew)

    def _renew(self) -> None:
        self.renewals += 1


def test_a_save_is_due_after_a_second() -> None:
    """Not before; the target's lease is renewed with each save, and the save carries its time."""
    desk = Desk()
    assert desk.save_if_due() is False
    desk.clock.advance(0.99)
    assert desk.save_if_due() is False
    desk.clock.advance(0.02)
    assert desk.save_if_due() is True
    assert desk.save_if_due() is False

    assert desk.renewals == 1
    stored = desk.store.checkpoint("key")
    assert stored is not None
    assert stored.saved_at == desk.clock.time()
    assert desk.told == [desk.clock.time() - 1.01, desk.clock.time()]


def test_every_save_is_due_where_the_sink_asks_for_it() -> None:
    """A sink that is not idempotent."""
    desk = Desk(save_each=True)

    assert [desk.save_if_due(), desk.save_if_due()] == [True, True]


def test_a_lost_lease_ends_the_leg_before_the_save() -> None:
    """The checkpoint is not touched then."""
    desk = Desk(save_each=True)

    def lost() -> None:
        raise SupersededError("leg b owns the target")

    with pytest.raises(SupersededError):
        desk.keeper.save_if_due(desk.mine, before=lost)
    assert len(desk.store.history) == 1


@pytest.mark.parametrize("act", ["save", "delete"])
def test_another_legs_checkpoint_is_neither_overwritten_nor_removed(act: str) -> None:
    """It is read before every write."""
    desk = Desk()
    desk.store.values["key"] = encode(checkpoint("b"))

    with pytest.raises(SupersededError, match="leg b took over from this leg"):
        desk.keeper.save(desk.mine) if act == "save" else desk.keeper.delete()
    stored = desk.store.checkpoint("key")
    assert stored is not None
    assert stored.token == "b"


def test_a_newer_leg_takes_over_by_claiming() -> None:
    """What it claims is what it has loaded."""
    desk = Desk()
    desk.keeper.load()
    desk.keeper.claim(checkpoint("b"), confirm=lambda: None)

    stored = desk.store.checkpoint("key")
    assert stored is not None
    assert stored.token == "b"


@pytest.mark.fault("zombie", at="engine")
def test_a_checkpoint_that_was_saved_since_it_was_loaded_is_not_claimed() -> None:
    """A leg that froze between the two would put back what has long been passed: it has to look again."""
    desk = Desk()
    desk.keeper.load()
    newer = encode(checkpoint("c"))
    desk.store.values["key"] = newer
    asked: list[str] = []

    with pytest.raises(ChangedMeanwhileError, match="'key' in memory was saved by another leg"):
        desk.keeper.claim(checkpoint("b"), confirm=lambda: asked.append("who owns the target"))

    assert asked
    assert desk.store.values["key"] == newer


def test_delete_forgets_the_run() -> None:
    """And a save after it is refused."""
    desk = Desk()
    desk.keeper.delete()

    assert desk.keeper.load() is None
    with pytest.raises(SupersededError, match="removed"):
        desk.keeper.save(desk.mine)


def test_a_damaged_checkpoint_is_absent_only_for_who_begins_anew() -> None:
    """Else it is refused."""
    desk = Desk()
    desk.store.values["key"] = "{"

    assert desk.keeper.load(ignore_damage=True) is None
    with pytest.raises(CannotResumeError):
        desk.keeper.load()


DAMAGED = [
    "{",
    "not JSON",
    "[1, 2]",
    encode(checkpoint("a"))[:-20],
    encode(checkpoint("a")).replace('"r"', '"x"'),
]


@pytest.mark.fault("checkpoint-damaged", at="engine")
@pytest.mark.parametrize("damaged", DAMAGED)
def test_damage_is_refused_by_its_name(damaged: str) -> None:
    """Not JSON, another JSON, cut off, edited: the line names the key, the store and the way out."""
    desk = Desk()
    desk.store.values["key"] = damaged
    with pytest.raises(CannotResumeError, match=r"^the checkpoint 'key' in memory: .* restart the run"):
        desk.keeper.load()
    with pytest.raises(CannotResumeError, match="'key' in memory was changed while the run went on"):
        desk.keeper.save(desk.mine)
    assert desk.store.values["key"] == damaged


@pytest.mark.fault("checkpoint-damaged", at="engine")
def test_a_newer_format_is_refused_by_its_name() -> None:
    """A newer version of the package wrote it: upgrade, or restart."""
    desk = Desk()
    newer = checkpoint("a")
    newer.schema = 99
    desk.store.values["key"] = encode(newer)
    with pytest.raises(
        CannotResumeError, match=r"'key' in memory: .*format 99.*upgrade the package, or restart"
    ):
        desk.keeper.load()


@pytest.mark.fault("clock", at="engine")
@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_jump_of_the_clock_changes_nothing(jump: float) -> None:
    """A save is due after a second that passed, whatever the wall clock says; its age is never negative."""
    desk = Desk()
    desk.clock.jump(jump)
    assert desk.save_if_due() is False
    desk.clock.advance(1.1)
    assert desk.save_if_due() is True
    desk.clock.jump(-2 * jump)
    assert desk.save_if_due() is False
    found = desk.keeper.load()
    assert found is not None
    again = decide(
        found, RunIdentity(run="r", max_checkpoint_age=timedelta(hours=3)), mode="real", now=desk.clock.time()
    )
    assert again.action == "resume"


@pytest.mark.fault("store-away", at="engine")
def test_a_store_that_fails_for_a_while_is_asked_again() -> None:
    """A save whose answer got lost is made again: the same value."""
    desk = Desk()
    desk.store.script.fail("save", TransientError("503"), at=2, when="after")
    desk.store.script.fail("load", TransientError("503"), at=1, times=2)
    desk.keeper.save(desk.mine)

    assert len(desk.store.history) == 3
    assert desk.store.history[1] == desk.store.history[2]
