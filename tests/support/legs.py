"""A world of doubles in which a job runs leg after leg, and ways to end a leg in the middle."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from typing_extensions import override

from airflow_batchkit.engine.clock import Clock, SystemClock
from airflow_batchkit.engine.dead_letters import DeadLetter
from airflow_batchkit.engine.exceptions import StoppedError
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.listener import Listener
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, Timeouts
from airflow_batchkit.testing.doubles import (
    FakeClock,
    LetterBox,
    MemoryDeadLetters,
    MemorySink,
    MemorySource,
    MemoryStore,
    MemoryTarget,
    NoConnections,
    ReadLog,
    made_up_records,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_batchkit.engine.checkpoint import Checkpoint
    from airflow_batchkit.engine.report import Report
    from airflow_batchkit.engine.types import Record

KEY = "job/run-1"
RUN = RunIdentity(run="run-1")
QUICK = BatchRetry(max_tries=4, first_wait=timedelta(milliseconds=1), max_wait=timedelta(milliseconds=2))
PATIENT = Timeouts(
    request=timedelta(days=20),
    batch=timedelta(days=400),
    no_progress=timedelta(days=400),
    run=timedelta(days=400),
)
QUIET = logging.getLogger("tests.legs")


class World:
    """What lasts from leg to leg: records, target, dead letters, checkpoints; and a job that works on them.

    :param partitions: records by name of the partition. Default: 45 records in one partition.
    :param source: more settings of the memory source.
    :param sink: more settings of the memory sink.
    :param clock: shared by all legs. Default: the machine's.
    :param job: more settings of the job. Default: batches of 10 records and quick retries.
    """

    def __init__(
        self,
        partitions: Mapping[str, Sequence[Record]] | None = None,
        *,
        source: Mapping[str, Any] | None = None,
        sink: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
        **job: Any,
    ) -> None:
        self.clock = clock or SystemClock()
        self.log = ReadLog()
        self.target = MemoryTarget()
        self.box = LetterBox()
        self.store = MemoryStore()
        self.source = MemorySource(
            partitions=partitions or {"a": made_up_records(45)}, log=self.log, **(source or {})
        )
        self.sink = MemorySink(target=self.target, **(sink or {}))
        self._settings: dict[str, Any] = {
            "name": "job",
            "batch": BatchPolicy(max_records=10),
            "batch_retry": QUICK,
            **job,
        }

    @property
    def letters(self) -> MemoryDeadLetters:
        """The place for dead letters, for jobs that want one."""
        return MemoryDeadLetters(box=self.box)

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The stored checkpoint of the real run."""
        return self.store.checkpoint(KEY)

    @property
    def stood(self) -> Checkpoint:
        """The stored checkpoint, which must be there."""
        checkpoint = self.checkpoint
        assert checkpoint is not None
        return checkpoint

    @property
    def ids(self) -> list[str]:
        """What a reader of the target sees, in order; empty when nothing is published."""
        return [] if self.target.published is None else self.target.published.ids

    def job(self, **changes: Any) -> Job:
        """Make the job."""
        return Job(**{"source": self.source, "sink": self.sink, **self._settings, **changes})

    def leg(self, job: Job | None = None, **settings: Any) -> Pipeline:
        """Make one leg.

        :param job: another job than the world's own.
        :param settings: for the pipeline.
        """
        given: dict[str, Any] = {
            "identity": RUN,
            "store": self.store,
            "key": KEY,
            "connections": NoConnections(),
            "log": QUIET,
            "clock": self.clock,
            **settings,
        }
        return Pipeline(job or self.job(), **given)

    def run(self, job: Job | None = None, **settings: Any) -> Report:
        """Run one leg."""
        return self.leg(job, **settings).run()

    def run_to_end(self, job: Job | None = None, *, legs: int = 50, **settings: Any) -> Report:
        """Run leg after leg, as Airflow does when one asks to come back later.

        :param legs: more than these mean that the run does not move.
        """
        for _ in range(legs):
            try:
                return self.run(job, **settings)
            except StoppedError:
                continue
        raise AssertionError(f"not finished after {legs} legs")


def at(clear_marker: str, **changes: Any) -> RunIdentity:
    """Return the usual run as a person who cleared it sees it."""
    return replace(RUN, clear_marker=clear_marker, **changes)


def dead_letter(error_type: str = "ValueError", *, error_class: str = "record", id: str = "1") -> DeadLetter:  # noqa: A002  # the letter's own word
    """Make a dead letter."""
    return DeadLetter(
        job="job",
        run="run-1",
        token="0123456789abcdef",
        partition="a",
        batch=1,
        id=id,
        stage="sink",
        error_class=error_class,
        error_type=error_type,
        message="",
        at=0.0,
        record=msgspec.Raw(b"{}"),
    )


class Recorder(Listener):
    """Remembers what it was told, as (event, what)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def named(self, event: str) -> list[Any]:
        """Return what was said with one kind of event."""
        return [what for name, what in self.events if name == event]

    @override
    def on_start(self, facts: Mapping[str, Any]) -> None:
        self.events.append(("start", dict(facts)))

    @override
    def on_progress(self, progress: Any) -> None:
        self.events.append(("progress", progress))

    @override
    def on_saved(self, checkpoint: Checkpoint) -> None:
        self.events.append(("saved", checkpoint.counts.read))

    @override
    def on_waiting(self, reason: str, seconds: float) -> None:
        self.events.append(("waiting", (reason, seconds)))

    @override
    def on_retry(self, what: str, error: BaseException, tries: int, wait: float) -> None:
        self.events.append(("retry", (what, str(error), tries)))

    @override
    def on_dead_letters(self, letters: Sequence[Any]) -> None:
        self.events.append(("dead_letters", [letter.id for letter in letters]))

    @override
    def on_budget_warning(self, used: float, dead_lettered: int) -> None:
        self.events.append(("budget", (round(used, 2), dead_lettered)))

    @override
    def on_publishing(self) -> None:
        self.events.append(("publishing", None))

    @override
    def on_finish(self, report: Report) -> None:
        self.events.append(("finish", report))

    @override
    def on_failure(self, error: BaseException) -> None:
        self.events.append(("failure", error))


class HurryingClock(FakeClock):
    """Moves on by itself whenever it is looked at, so that every window is old enough to be saved.

    :param step: seconds by which it moves.
    """

    def __init__(self, step: float = 0.4) -> None:
        super().__init__()
        self._step = step

    @override
    def monotonic(self) -> float:
        self.advance(self._step)
        return super().monotonic()


class KilledError(BaseException):
    """Stands for SIGKILL: no handler for errors may catch it."""


class Death:
    """Ends a leg before or after its k-th side effect; from then on none of its threads has any effect.

    :param at: which moment, from 1: each effect has two (before and after). 0: never, only count.
    """

    def __init__(self, at: int = 0) -> None:
        self.moments: list[str] = []
        self._at = at
        self._lock = threading.Lock()
        self._ghosts: set[threading.Thread] = set()
        self._dying = False

    def __call__(self, name: str, when: Literal["before", "after"]) -> None:
        """Be a probe."""
        with self._lock:
            if self._dying or threading.current_thread() in self._ghosts:
                raise KilledError
            self.moments.append(f"{when} {name}")
            if len(self.moments) == self._at:
                self._dying = True
                raise KilledError

    def bury(self) -> None:
        """Let new legs begin; what the dead one left running stays without effect."""
        with self._lock:
            mine = threading.current_thread()
            self._ghosts.update(thread for thread in threading.enumerate() if thread is not mine)
            self._dying = False

    @contextmanager
    def lurking(self) -> Iterator[Death]:
        """Be asked at every effect for the time of a ``with`` block."""
        with probing(self):
            yield self
