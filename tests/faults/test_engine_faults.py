"""Each fault that the engine can meet, on doubles: a scenario for each, and one oracle for all of them."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import (
    PermanentError,
    PushbackError,
    RecordError,
    StoppedError,
    SupersededError,
    TargetHeldError,
    TransientError,
)
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget
from airflow_batchkit.testing.doubles import made_up_records
from tests.support.engine_oracle import check_whole, run_through
from tests.support.legs import PATIENT, QUICK, RUN, HurryingClock, World, at
from tests.support.troubles import JumpingClock

GIVEN_UP = frozenset({"4", "17", "18", "107"})
TRIES = QUICK.max_tries
AWAY = TransientError("connection refused")
BURST = TransientError("502")
BUSY = PushbackError("429")
PATIENCE = PushbackError("429", 0.01)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One trouble.

    :param double: whose call fails; empty: none.
    :param call: which.
    :param error: what it raises.
    :param where: at which of these calls, how often, before or after it has its effect.
    :param legs: how many legs the run takes at most.
    :param given_up: records that become dead letters.
    :param by: who gives them up.
    :param jump: how far the clock jumps, in seconds.
    """

    double: str
    call: str
    error: Exception
    where: dict[str, Any]
    legs: int
    given_up: Collection[str]
    by: str
    jump: float

    def poisoned(self, document: dict[str, Any]) -> dict[str, Any]:
        """Be the transform: give some records up, the others come out as they went in."""
        if self.by == "transform" and str(document["id"]) in self.given_up:
            raise RecordError("poison")
        return document

    def world(self) -> World:
        """Make the world: two partitions, and a third without any record."""
        world = World(
            {"a": made_up_records(37), "b": made_up_records(12, first=100), "c": []},
            clock=JumpingClock(self.jump),
            timeouts=PATIENT,
            transform=self.poisoned,
            error_budget=ErrorBudget(max_dead_letters=len(GIVEN_UP)),
        )
        if self.by == "target":
            world.target.rejects = set(self.given_up)
        scripts = {
            "source": world.log.script,
            "target": world.target.script,
            "letters": world.box.script,
            "store": world.store.script,
        }
        if self.double:
            scripts[self.double].fail(self.call, self.error, **self.where)
        return world


def case(
    fault: pytest.MarkDecorator,
    what: str,
    call: str = "",
    error: Exception = BURST,
    *,
    legs: int = 1,
    given_up: Collection[str] = (),
    by: str = "target",
    jump: float = 0.0,
    **where: Any,
) -> Any:
    """Make a scenario.

    :param fault: the mark of what it shows.
    :param call: ``double.call``.
    """
    double, _, name = call.partition(".")
    scenario = Scenario(
        double=double,
        call=name,
        error=error,
        where=where,
        legs=legs,
        given_up=given_up,
        by=by,
        jump=jump,
    )
    return pytest.param(scenario, id=f"{fault.args[0]}: {what}", marks=fault)


REFUSED = pytest.mark.fault("refused", at="engine")
CUT = pytest.mark.fault("cut", at="engine")
ANSWER_LOST = pytest.mark.fault("answer-lost", at="engine")
PUSHBACK = pytest.mark.fault("pushback", at="engine")
SERVER_ERROR = pytest.mark.fault("server-error", at="engine")
POISON = pytest.mark.fault("poison", at="engine")
PARTIAL_BULK = pytest.mark.fault("partial-bulk", at="engine")
CLOCK = pytest.mark.fault("clock", at="engine")
STORE_AWAY = pytest.mark.fault("store-away", at="engine")

CASES = [
    case(REFUSED, "the source, once", "source.open", AWAY, legs=2),
    case(REFUSED, "the source, for many tries", "source.page:a", AWAY, at=3, times=9, legs=5),
    case(REFUSED, "the target, at the start", "target.start", AWAY, times=2, legs=3),
    case(REFUSED, "the target, for a leg", "target.write", AWAY, at=2, times=TRIES, legs=2),
    case(REFUSED, "the target, when publishing", "target.publish", AWAY, times=TRIES, legs=2),
    case(CUT, "a page, before its first byte", "source.page:a", at=2),
    case(CUT, "a page, at its last byte", "source.page:a", at=2, when="after"),
    case(ANSWER_LOST, "of a write", "target.write", at=2, times=2, when="after"),
    case(ANSWER_LOST, "of every try", "target.write", at=2, times=TRIES, when="after", legs=2),
    case(ANSWER_LOST, "of the publication", "target.publish", when="after"),
    case(ANSWER_LOST, "of the cleaning up", "target.clean", times=TRIES, when="after", legs=2),
    case(ANSWER_LOST, "of dead letters", "letters.put", times=2, when="after", given_up=GIVEN_UP),
    case(ANSWER_LOST, "of settling them", "letters.settle", times=2, when="after", given_up=GIVEN_UP),
    case(ANSWER_LOST, "of saves", "store.save", at=3, times=2, when="after"),
    case(PUSHBACK, "of writes", "target.write", BUSY, at=2, times=TRIES - 1),
    case(PUSHBACK, "of writes, with the time to wait", "target.write", PATIENCE, at=2, times=TRIES - 1),
    case(PUSHBACK, "for longer than a slot", "target.write", PushbackError("429", 900.0), legs=2),
    case(PUSHBACK, "of pages", "source.page:b", PATIENCE, times=TRIES - 1),
    case(PUSHBACK, "of saves", "store.save", PATIENCE, at=2, times=TRIES - 1),
    case(PUSHBACK, "of dead letters", "letters.put", PATIENCE, times=2, given_up=GIVEN_UP),
    case(SERVER_ERROR, "of writes, in a burst", "target.write", times=TRIES - 1),
    case(SERVER_ERROR, "of pages, in a burst", "source.page:a", times=TRIES - 1),
    case(SERVER_ERROR, "of the publication, in a burst", "target.publish", times=TRIES - 1),
    case(SERVER_ERROR, "that does not end for two legs", "target.write", times=2 * TRIES, legs=3),
    case(POISON, "in the transform", given_up=GIVEN_UP, by="transform"),
    case(POISON, "in the target", given_up=GIVEN_UP),
    case(PARTIAL_BULK, "and pushed back", "target.write", BUSY, at=2, times=3, given_up=GIVEN_UP),
    case(PARTIAL_BULK, "and no answer", "target.write", times=3, when="after", given_up=GIVEN_UP),
    case(CLOCK, "forwards and back, by a day", jump=86_400.0),
    case(CLOCK, "back and forwards, by a year", jump=-31_536_000.0),
    case(STORE_AWAY, "for a while", "store.save", AWAY, at=2, times=TRIES - 1),
    case(STORE_AWAY, "for two legs", "store.save", AWAY, at=2, times=2 * TRIES, legs=4),
    case(STORE_AWAY, "when the run begins", "store.load", AWAY, times=TRIES, legs=2),
]


@pytest.mark.parametrize("scenario", CASES)
def test_nothing_is_lost_or_doubled(scenario: Scenario) -> None:
    """The run ends, in as few legs as the trouble allows, with every record where it belongs."""
    world = scenario.world()
    legs = run_through(world, world.job(dead_letters=world.letters))
    assert legs <= scenario.legs
    check_whole(world, given_up=scenario.given_up)


@pytest.mark.fault("letters-refused", at="engine")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_place_that_refuses_a_dead_letter_fails_the_run_before_the_cursor_passes_it(when: str) -> None:
    """The run fails with the cause, its cursor before the record; once mended, nothing is lost."""
    world = World(clock=HurryingClock(), error_budget=ErrorBudget(max_dead_letters=9))
    world.target.rejects = {"25"}
    job = world.job(dead_letters=world.letters)
    world.box.script.fail("put", PermanentError("403 no such bucket"), when=when)  # type: ignore[arg-type]  # a param is a str

    with pytest.raises(PermanentError, match="no such bucket"):
        world.run(job)

    assert world.stood.status == "failed"
    assert world.stood.counts.read == 20
    assert world.target.published is None
    run_through(world, job)
    check_whole(world, given_up={"25"})


@pytest.mark.fault("few-records", at="engine")
@pytest.mark.parametrize("style", ["records", "windows"])
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 19, 20, 21, 40])
def test_few_records(count: int, style: str) -> None:
    """None, one, and one more or less than a page, a batch or a window: all of them, in no empty part."""
    world = World(
        {"a": made_up_records(count), "b": []},
        source={"style": style, "page_records": 10, "window_records": 20},
        batch=BatchPolicy(max_records=10),
    )
    assert run_through(world) == 1
    check_whole(world)
    assert world.target.published is not None
    assert world.target.published.parts == -(-count // 10)


@pytest.mark.fault("two-at-once", at="engine")
def test_two_runs_at_once_one_goes_on_and_the_other_says_who_holds_the_target() -> None:
    """The second run is refused while the first writes; later it replaces the output by its own."""
    world = World(clock=HurryingClock())
    block = world.target.script.block("write", at=2)
    first = threading.Thread(target=world.run, daemon=True)
    first.start()
    assert block.wait_until_reached()
    other = at("", run="run-2")

    with pytest.raises(TargetHeldError, match="run-1 owns the target"):
        world.run(identity=other, key="job/run-2")

    block.release()
    first.join(20)
    check_whole(world)
    world.run(identity=other, key="job/run-2")
    assert [published.run for published in world.target.history] == [RUN.run, "run-2"]
    assert world.target.history[0].ids == world.target.history[1].ids


@pytest.mark.fault("two-at-once", at="engine")
@pytest.mark.fault("zombie", at="engine")
@pytest.mark.parametrize("call", ["write", "publish"])
def test_two_tries_at_once_the_newer_one_goes_on(call: str) -> None:
    """A try that hangs in a call, and another one: the first stops by itself, the output is whole, once."""
    world = World(clock=HurryingClock())
    block = world.target.script.block(call)
    ended: list[BaseException] = []

    def older() -> None:
        try:
            world.run()
        except (SupersededError, StoppedError) as error:
            ended.append(error)

    thread = threading.Thread(target=older, daemon=True)
    thread.start()
    assert block.wait_until_reached()
    run_through(world)
    block.release()
    thread.join(20)

    assert [type(error) for error in ended] == [SupersededError]
    assert "took over" in str(ended[0])
    world.target.staged.clear()  # what the older one was sending lies under its own token, and does not count
    check_whole(world)
