"""Random jobs under random faults, against a model: after enough legs the output is what the model says."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any, Literal

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from airflow_batchkit.engine.exceptions import (
    PushbackError,
    RecordError,
    StoppedError,
    SupersededError,
    TransientError,
)
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.testing.doubles import made_up_records
from airflow_batchkit.testing.script import Script
from tests.support.legs import PATIENT, QUICK, Death, HurryingClock, KilledError, World

EXAMPLES = int(os.environ.get("BATCHKIT_MODEL_EXAMPLES", "100"))
LEGS = 60
MOST_RECORDS = 30

Fate = Literal["kept", "filtered", "failed", "spread", "rejected", "spread, one rejected"]
FATES: list[Fate] = [
    "kept",
    "kept",
    "kept",
    "filtered",
    "failed",
    "spread",
    "rejected",
    "spread, one rejected",
]


@dataclass(frozen=True)
class Fault:
    """Calls that fail, or lose their answer, some times in a row."""

    double: Literal["source", "target", "letters", "store"]
    call: str
    at: int
    times: int
    when: Literal["before", "after"]
    pushback: bool


@dataclass(frozen=True)
class Ending:
    """How one leg is ended from outside: at which of its effects, and in what way."""

    way: Literal["killed", "stopped"]
    at: int


@dataclass(frozen=True)
class Scenario:
    """One job, and everything that happens to it."""

    partitions: list[int]
    fates: list[Fate]
    style: Literal["records", "windows"]
    idempotent: bool
    one_write: bool
    page_records: int
    window_records: int
    max_records: int | None
    max_bytes: int
    readers: int
    faults: list[Fault]
    endings: list[Ending]
    zombie_at: int

    def fate(self, number: int) -> Fate:
        """Say what becomes of the record with this number."""
        return self.fates[number % len(self.fates)]

    def numbers(self, partition: int) -> range:
        """Return the numbers of a partition's records; no two partitions share one."""
        return range(1000 * partition + 1, 1000 * partition + 1 + self.partitions[partition])

    def transform(self, document: dict[str, Any]) -> list[dict[str, Any]] | dict[str, Any] | None:
        """Be the user's function."""
        fate = self.fate(document["id"])
        if fate == "failed":
            raise RecordError("as the scenario says")
        if fate == "filtered":
            return None
        return [document, document] if fate.startswith("spread") else document

    def expected(self) -> tuple[list[str], list[str]]:
        """Return the ids that shall be published, in order, and those that shall be dead letters."""
        published: list[str] = []
        dead: list[str] = []
        for partition in range(len(self.partitions)):
            for number in self.numbers(partition):
                fate = self.fate(number)
                if fate == "kept":
                    published.append(str(number))
                elif fate in {"failed", "rejected"}:
                    dead.append(str(number))
                elif fate == "spread":
                    published += [f"{number}-1", f"{number}-2"]
                elif fate == "spread, one rejected":
                    published.append(f"{number}-1")
                    dead.append(f"{number}-2")
        return published, sorted(dead)


CALLS = {
    "source": ["page:p0", "page:p1", "open"],
    "target": ["start", "write", "write", "write", "renew", "publish", "clean"],
    "letters": ["start", "put", "settle"],
    "store": ["load", "save", "save"],
}


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    """Draw calls of one double that fail."""
    double = draw(st.sampled_from(sorted(CALLS)))
    return Fault(
        double=double,  # type: ignore[arg-type]  # the keys of CALLS are the names
        call=draw(st.sampled_from(CALLS[double])),
        at=draw(st.integers(1, 25)),
        times=draw(st.sampled_from([1, 1, 2, 3, QUICK.max_tries, QUICK.max_tries + 2])),
        when=draw(st.sampled_from(["before", "after"])),
        pushback=draw(st.booleans()),
    )


ENDINGS = st.builds(Ending, way=st.sampled_from(["killed", "stopped"]), at=st.integers(1, 60))

SCENARIOS = st.builds(
    Scenario,
    partitions=st.lists(st.integers(0, MOST_RECORDS), min_size=1, max_size=4),
    fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=7),
    style=st.sampled_from(["records", "windows"]),
    idempotent=st.booleans(),
    one_write=st.booleans(),
    page_records=st.integers(1, 9),
    window_records=st.integers(1, 14),
    max_records=st.one_of(st.none(), st.integers(1, 8)),
    max_bytes=st.sampled_from([1, 60, 300, 100_000]),
    readers=st.integers(1, 4),
    faults=st.lists(faults(), max_size=5),
    endings=st.lists(ENDINGS, max_size=4),
    zombie_at=st.integers(-10, 12),
)


def world_of(scenario: Scenario) -> World:
    """Make the doubles, with the scenario's faults in their scripts."""
    world = World(
        {
            f"p{partition}": [
                record
                for number in scenario.numbers(partition)
                for record in made_up_records(1, first=number)
            ]
            for partition in range(len(scenario.partitions))
        },
        source={
            "style": scenario.style,
            "page_records": scenario.page_records,
            "window_records": scenario.window_records,
        },
        sink={"idempotent": scenario.idempotent, "one_write_per_partition": scenario.one_write},
        clock=HurryingClock(),
        batch=BatchPolicy(max_records=scenario.max_records, max_bytes=scenario.max_bytes),
        readers=scenario.readers,
        timeouts=PATIENT,
        transform=scenario.transform,
        error_budget=ErrorBudget(max_dead_letters=10_000),
    )
    numbers = [
        number for partition in range(len(scenario.partitions)) for number in scenario.numbers(partition)
    ]
    world.target.rejects = {str(number) for number in numbers if scenario.fate(number) == "rejected"} | {
        f"{number}-2" for number in numbers if scenario.fate(number) == "spread, one rejected"
    }
    scripts: dict[str, Script] = {
        "source": world.log.script,
        "target": world.target.script,
        "letters": world.box.script,
        "store": world.store.script,
    }
    for fault in scenario.faults:
        error = PushbackError("429", 0.001) if fault.pushback else TransientError("503")
        scripts[fault.double].fail(fault.call, error, at=fault.at, times=fault.times, when=fault.when)
    return world


class Zombie:
    """A leg that freezes in one of its writes and thaws after the run is over."""

    def __init__(self, world: World, job: Any, at: int) -> None:
        self.ended: list[BaseException] = []
        self._block = world.target.script.block("write", at=at)
        self._thread = threading.Thread(target=self._run, args=(world, job), daemon=True)
        self._thread.start()
        while self._thread.is_alive() and not self._block.wait_until_reached(0.01):
            pass
        if not self._thread.is_alive():
            self._block.release()  # it ended before it came there: no other leg shall freeze in its place

    def _run(self, world: World, job: Any) -> None:
        try:
            world.run(job, max_stuck_legs=LEGS)
        except (KilledError, StoppedError, SupersededError, TransientError) as error:
            self.ended.append(error)

    def thaw(self) -> None:
        """Let it go on, and wait until it ended."""
        self._block.release()
        self._thread.join(20)
        assert not self._thread.is_alive()


def one_leg(world: World, job: Any, ending: Ending | None) -> bool:
    """Run one leg, ended from outside or not; tell whether the run is over."""
    stop = Stop()
    death = Death(ending.at if ending is not None and ending.way == "killed" else 0)

    def probe(name: str, when: Literal["before", "after"]) -> None:
        death(name, when)
        if ending is not None and ending.way == "stopped" and len(death.moments) == ending.at:
            stop.ask("the scenario says so")

    with probing(probe):
        try:
            world.run(job, stop=stop, max_stuck_legs=LEGS)
        except KilledError:
            death.bury()
            return False
        except (StoppedError, TransientError):
            return False
        except SupersededError:
            # The frozen leg's main thread may have been between its look at the checkpoint and its save: the
            # store has no compare-and-set. Both legs stop then, and the next goes on from what was saved.
            return False
    return True


def _wait_for_threads() -> None:
    """Readers and writers of ended legs end soon; else they would run on in the next example."""
    for thread in threading.enumerate():
        if thread.name.startswith("batchkit-"):
            thread.join(10)
            assert not thread.is_alive(), f"{thread.name} runs on after its leg"


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(scenario=SCENARIOS)
def test_whatever_happens_the_output_is_what_the_model_says(scenario: Scenario) -> None:
    """Failures, lost answers, kills, stops and thawed legs in any order: nothing is lost or doubled."""
    world = world_of(scenario)
    job = world.job(dead_letters=world.letters)
    zombie = Zombie(world, job, scenario.zombie_at) if scenario.zombie_at > 0 else None
    endings = iter(scenario.endings)

    over = any(one_leg(world, job, next(endings, None)) for _ in range(LEGS))
    if zombie is not None:
        zombie.thaw()

    _wait_for_threads()
    published, dead = scenario.expected()
    assert over, f"not finished after {LEGS} legs"
    assert world.ids == published
    assert sorted(letter.id for letter in world.box.settled) == dead
    assert len(world.target.history) == 1
    counts = world.stood.counts
    assert world.stood.status == "completed"
    assert counts.difference() is None
    assert counts.read == sum(scenario.partitions)
    assert counts.written == len(published)
    assert counts.dead_lettered == len(dead)
    assert world.target.published is not None
    assert world.target.published.counts["written"] == len(published)
