"""Where exactly a budget ends a run, and that checkpoint and dead letters then say the same."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from airflow_batchkit.engine.exceptions import ErrorBudgetExceededError, RecordError, StoppedError
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget
from airflow_batchkit.testing.doubles import made_up_records
from airflow_batchkit.testing.doubles.parts import chain, counting
from tests.support.legs import PATIENT, HurryingClock, World, at

Fate = Literal["kept", "odd", "refused"]


@dataclass(frozen=True)
class Scenario:
    """One job, what becomes of its records, and how its windows fall."""

    partitions: list[list[Fate]]
    budget: int
    per_record: int | None
    style: Literal["records", "windows"]
    window_records: int
    batch_records: int
    readers: int
    idempotent: bool
    max_batches: int | None
    stops: list[int]

    @property
    def bad(self) -> int:
        """How many records are given up when all of them are read."""
        return sum(fate != "kept" for fates in self.partitions for fate in fates)

    def world(self) -> World:
        """Make it."""
        numbers = itertools.count(1)
        ids = [[(next(numbers), fate) for fate in fates] for fates in self.partitions]
        odd = {number for fates in ids for number, fate in fates if fate == "odd"}

        def transform(document: dict[str, Any]) -> dict[str, Any]:
            if document["id"] in odd:
                raise RecordError("odd")
            return document

        world = World(
            {
                f"p{position}": made_up_records(len(fates), first=fates[0][0] if fates else 1)
                for position, fates in enumerate(ids)
            },
            source={"style": self.style, "window_records": self.window_records},
            sink={"idempotent": self.idempotent},
            clock=HurryingClock(),
            timeouts=PATIENT,
            transform=transform,
            batch=BatchPolicy(max_records=self.batch_records),
            readers=self.readers,
            max_batches=self.max_batches,
            error_budget=ErrorBudget(
                max_dead_letters=self.budget,
                max_per_class=None if self.per_record is None else {"record": self.per_record},
            ),
        )
        world.target.rejects = {str(number) for fates in ids for number, fate in fates if fate == "refused"}
        for number in self.stops:
            world.target.script.fail("write", StoppedError("a deploy"), at=number)
        return world


fates = st.lists(st.sampled_from(["kept", "kept", "odd", "refused"]), max_size=25)
scenarios = st.builds(
    Scenario,
    partitions=st.lists(fates, min_size=1, max_size=4),
    budget=st.integers(1, 12),
    per_record=st.none() | st.integers(0, 12),
    style=st.sampled_from(["records", "windows"]),
    window_records=st.integers(1, 12),
    batch_records=st.integers(1, 6),
    readers=st.integers(1, 4),
    idempotent=st.booleans(),
    max_batches=st.none() | st.integers(1, 8),
    stops=st.lists(st.integers(1, 12), max_size=2),
)


@given(scenario=scenarios)
@settings(max_examples=120, deadline=None, database=None)
def test_what_is_kept_is_what_the_checkpoint_counts(scenario: Scenario) -> None:
    """Whatever was in flight: the letters that count are those of the counts, by number, id and class."""
    world = scenario.world()
    job = world.job(dead_letters=world.letters)
    allowed = scenario.budget if scenario.per_record is None else min(scenario.budget, scenario.per_record)
    try:
        report = world.run_to_end(job)
    except ErrorBudgetExceededError:
        check_a_failed_run(world, scenario, allowed)
    else:
        assert report.counts["dead_lettered"] == len(world.box.settled) <= allowed


def check_a_failed_run(world: World, scenario: Scenario, allowed: int) -> None:
    """Compare checkpoint, staging and what readers see; then clear until the run is complete."""
    key = "job/run-1" if scenario.max_batches is None else "job/run-1.partial"
    stood = world.store.checkpoint(key)
    assert stood is not None
    assert stood.counts.dead_lettered > allowed
    assert stood.counts.difference() is None
    names = counting(world.box.staged, chain(stood.token, stood.frontier, world.box.inherited))
    kept = [letter for name in names for letter in world.box.staged[name]]
    assert len(kept) == len({letter.id for letter in kept}) == stood.counts.dead_lettered
    assert Counter(letter.error_class for letter in kept) == stood.classes
    assert Counter(letter.error_type for letter in kept) == stood.errors
    assert set(stood.samples) <= {letter.id for letter in kept}
    if scenario.max_batches is not None:
        assert world.box.revealed == []
        return
    assert sorted(letter.id for letter in world.box.revealed) == sorted(letter.id for letter in kept)
    for clear in range(scenario.bad + 1):
        try:
            world.run_to_end(world.job(dead_letters=world.letters), identity=at(f"cleared {clear}"))
        except ErrorBudgetExceededError:
            continue
        break
    assert len(world.box.settled) == len({letter.id for letter in world.box.settled}) == scenario.bad
    assert world.stood.counts.dead_lettered == scenario.bad
    assert world.box.revealed == []


@pytest.mark.parametrize("allowed", [1, 2, 3, 4])
def test_a_window_is_charged_as_a_whole(allowed: int) -> None:
    """A window of several batches moves the budget once, at its end: more than allowed may be kept."""
    world = Scenario(
        partitions=[["kept", "odd", "odd", "odd", "odd", "kept", "odd", "odd"]],
        budget=allowed,
        per_record=None,
        style="windows",
        window_records=6,
        batch_records=2,
        readers=1,
        idempotent=True,
        max_batches=None,
        stops=[],
    ).world()
    with pytest.raises(ErrorBudgetExceededError):
        world.run(world.job(dead_letters=world.letters))

    assert len(world.box.revealed) in ({4, 6} if allowed < 4 else {6})
    assert len(world.box.revealed) == world.stood.counts.dead_lettered
