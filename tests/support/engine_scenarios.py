"""Random jobs for the engine on doubles, everything that happens to them, and what has to come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import hypothesis.strategies as st

from airflow_batchkit.engine.exceptions import PermanentError, PushbackError, RecordError, TransientError
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget
from airflow_batchkit.engine.types import Record, UnreadableRecord
from airflow_batchkit.testing.doubles import made_up_records
from airflow_batchkit.testing.script import Script
from tests.support.legs import PATIENT, QUICK, World
from tests.support.troubles import JumpingClock

MOST_RECORDS = 30

Fate = Literal["kept", "filtered", "failed", "spread", "rejected", "spread, one rejected", "unreadable"]
FATES: list[Fate] = [
    "kept",
    "kept",
    "kept",
    "filtered",
    "failed",
    "spread",
    "rejected",
    "spread, one rejected",
    "unreadable",
]


@dataclass(frozen=True)
class Fault:
    """Calls that fail, or lose their answer, some times in a row."""

    double: Literal["source", "target", "letters", "store"]
    call: str
    at: int
    times: int
    when: Literal["before", "after"]
    error: Literal["transient", "pushback", "pushback for a moment", "pushback for an hour", "permanent"]


@dataclass(frozen=True)
class Ending:
    """How one leg is ended from outside: at which of its effects, and in what way."""

    way: Literal["killed", "stopped"]
    at: int


@dataclass(frozen=True)
class Frost:
    """A leg that freezes in a write of its own, and thaws after so many more legs."""

    write: int
    legs: int


@dataclass(frozen=True)
class Clear:
    """A person clears the task after so many legs."""

    legs: int
    restarts: bool


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
    frosts: list[Frost]
    clears: list[Clear]
    budget: int
    jump: float

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
                elif fate in {"failed", "rejected", "unreadable"}:
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


_TO_BE_MENDED = "403, until somebody mends it"
ERRORS: dict[str, Callable[[], Exception]] = {
    "transient": lambda: TransientError("503"),
    "pushback": lambda: PushbackError("429"),
    "pushback for a moment": lambda: PushbackError("429", 0.001),
    "pushback for an hour": lambda: PushbackError("429", 3600.0),
    "permanent": lambda: PermanentError(_TO_BE_MENDED),
}


def is_drawn(error: BaseException) -> bool:
    """Whether a permanent error is one of the scenario's: the engine may have no other one."""
    return str(error) == _TO_BE_MENDED


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
        error=draw(st.sampled_from(sorted(ERRORS))),
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
    frosts=st.lists(st.builds(Frost, write=st.integers(1, 8), legs=st.integers(0, 6)), max_size=3),
    clears=st.lists(st.builds(Clear, legs=st.integers(1, 6), restarts=st.booleans()), max_size=2),
    budget=st.sampled_from([10_000, 10_000, 25, 12]),
    jump=st.sampled_from([0.0, 0.0, 3_600.0, -86_400.0]),
)


def world_of(scenario: Scenario) -> World:
    """Make the doubles, with the scenario's faults in their scripts."""
    world = World(
        {
            f"p{partition}": [
                unreadable(record) if scenario.fate(number) == "unreadable" else record
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
        clock=JumpingClock(scenario.jump),
        batch=BatchPolicy(max_records=scenario.max_records, max_bytes=scenario.max_bytes),
        readers=scenario.readers,
        timeouts=PATIENT,
        transform=scenario.transform,
        error_budget=ErrorBudget(max_dead_letters=scenario.budget),
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
        # Whoever mends what is permanent does so before the next leg.
        times = 1 if fault.error == "permanent" else fault.times
        scripts[fault.double].fail(
            fault.call, ERRORS[fault.error](), at=fault.at, times=times, when=fault.when
        )
    return world


def unreadable(record: Record) -> Record:
    """Return a record as its source delivers it where it cannot read it."""
    return UnreadableRecord(record.id, record.body, message="made up")
