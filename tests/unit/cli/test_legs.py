"""Leg after leg on the command line: which run is taken over, and that pauses are sat out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from typing_extensions import override

from airflow_batchkit.cli.checkpoint_files import CheckpointFile, checkpoint_at
from airflow_batchkit.cli.legs import identity_of, job_of_run, run_legs, say_how_to_go_on
from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.engine.checkpoint import Budget, Checkpoint, Counts, encode
from airflow_batchkit.engine.exceptions import CannotResumeError, ErrorBudgetExceededError, StoppedError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.listener import Listener
from airflow_batchkit.engine.policies import ErrorBudget
from airflow_batchkit.engine.stop import Stop

if TYPE_CHECKING:
    from airflow_batchkit.engine.pipeline import Pipeline


@pytest.fixture
def file(tmp_path: Path) -> CheckpointFile:
    """Give a checkpoint file that is not there yet."""
    return checkpoint_at(tmp_path / "orders.checkpoint")


def job(allowed: int = 0) -> Job:
    """Make a job that may give up so many records."""
    return Job(
        name="orders",
        source=IterableSource(records=list),
        sink=ObjectStorageSink(url="file:///nowhere"),
        error_budget=ErrorBudget(max_dead_letters=allowed),
        dead_letters=DeadLetters("file:///nowhere/letters"),
    )


def save(file: CheckpointFile, *, status: str, exceeded: str = "") -> None:
    """Leave a checkpoint of the run ``r1`` behind."""
    checkpoint = Checkpoint(
        run="r1",
        token="0" * 16,
        generation="abcd1234",
        clear_marker="m1",
        started_at=time.time(),
        saved_at=time.time(),
        status=status,
        counts=Counts(read=100, dead_lettered_by_transform=2),
        budget=Budget(exceeded=exceeded),
    )
    file.path.write_text(encode(checkpoint))


def test_an_unfinished_run_is_taken_over(file: CheckpointFile) -> None:
    """The same run goes on, whether the command names it or not."""
    save(file, status="running")
    assert identity_of(file, job(), restart=False) == RunIdentity(run="r1", clear_marker="m1")
    assert identity_of(file, job(), restart=False, run="r1") == RunIdentity(run="r1", clear_marker="m1")


def test_a_complete_run_is_reported_again_only_where_it_is_named(file: CheckpointFile) -> None:
    """A command that names its run means that run; one that does not begins another."""
    save(file, status="completed")
    assert identity_of(file, job(), restart=False, run="r1") == RunIdentity(run="r1", clear_marker="m1")
    assert identity_of(file, job(), restart=False).run != "r1"


def test_another_run_begins(file: CheckpointFile) -> None:
    """What another run left behind says nothing about this one."""
    save(file, status="running")
    assert identity_of(file, job(), restart=False, run="r2") == RunIdentity(run="r2")


@pytest.mark.parametrize("run", [None, "r1"])
def test_a_restart_keeps_the_name_of_an_unfinished_run(file: CheckpointFile, run: str | None) -> None:
    """It owns the target already, and another marker gives its output another generation."""
    save(file, status="running")
    identity = identity_of(file, job(), restart=True, run=run)
    assert (identity.run, identity.restart) == ("r1", True)
    assert identity.clear_marker not in {"", "m1"}


def test_a_damaged_checkpoint_is_only_passed_over_by_a_restart(file: CheckpointFile) -> None:
    """What cannot be read is not taken for nothing."""
    file.path.write_text("{")
    with pytest.raises(CannotResumeError):
        identity_of(file, job(), restart=False)
    assert identity_of(file, job(), restart=True, run="r1").run == "r1"


def test_an_exceeded_budget_needs_a_larger_one(file: CheckpointFile) -> None:
    """The run that failed on its budget goes on, in a new period, once the budget allows what it gave up."""
    save(file, status="failed", exceeded="2 dead letters, 1 allowed")
    with pytest.raises(ErrorBudgetExceededError, match="with a larger error budget, or begin anew"):
        identity_of(file, job(allowed=1), restart=False)
    identity = identity_of(file, job(allowed=5), restart=False, run="r1")
    assert identity.run == "r1"
    assert identity.clear_marker != "m1"


class Legs:
    """Stands in for pipelines: ends each leg as it is told, and keeps the identity it was made for."""

    def __init__(self, *ends: StoppedError | None, stop: Stop) -> None:
        self._ends = list(ends)
        self.stop = stop
        self.identities: list[RunIdentity] = []

    def new(self, identity: RunIdentity) -> Pipeline:
        """Make the next leg."""
        self.identities.append(identity)
        return cast("Pipeline", self)

    def run(self) -> str:
        """End as told."""
        end = self._ends.pop(0)
        if end is not None:
            raise end
        return "the report"


class Waits(Listener):
    """Keeps the pauses it is told of, and asks to stop at a long one."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self.seconds: list[float] = []

    @override
    def on_waiting(self, reason: str, seconds: float) -> None:
        self.seconds.append(seconds)
        if seconds > 1:
            self._stop.ask("stopped by Ctrl-C")


def test_pauses_are_sat_out() -> None:
    """A leg that may go on later is followed by another, which does not restart again."""
    stop = Stop()
    legs = Legs(StoppedError("the store is busy", 0.01), StoppedError("still", 0.01), None, stop=stop)
    waits = Waits(stop)
    report: object = run_legs(legs.new, RunIdentity(run="r1", restart=True), stop=stop, listener=waits)
    assert report == "the report"
    assert waits.seconds == [0.01, 0.01]
    assert [identity.restart for identity in legs.identities] == [True, False, False]


def test_a_stop_ends_the_waiting() -> None:
    """Who asks to stop does not wait for the end of a pause."""
    stop = Stop()
    legs = Legs(StoppedError("the store is busy", 3600), stop=stop)
    with pytest.raises(StoppedError, match="stopped by Ctrl-C"):
        run_legs(legs.new, RunIdentity(run="r1"), stop=stop, listener=Waits(stop))


def test_a_stop_without_a_pause_is_told() -> None:
    """What does not say when to go on is left to the person."""
    stop = Stop()
    legs = Legs(StoppedError("someone has to look"), stop=stop)
    with pytest.raises(StoppedError, match="someone has to look"):
        run_legs(legs.new, RunIdentity(run="r1"), stop=stop, listener=Waits(stop))


def test_the_command_that_goes_on_does_not_restart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The printed command is the one that was typed, quoted for a shell, without ``--restart``."""
    monkeypatch.setattr("sys.argv", ["/usr/bin/batchkit", "run", "my dags.py", "export", "--restart"])
    say_how_to_go_on(StoppedError("stopped by SIGTERM"))
    assert (
        capsys.readouterr().err
        == "batchkit: stopped by SIGTERM; to go on: batchkit run 'my dags.py' export\n"
    )


def test_a_run_that_begins_is_named_by_who_names_it(file: CheckpointFile) -> None:
    """A made-up name is one by which others may go on; a given one keeps its clear marker."""
    assert identity_of(file, job(), restart=False).nameless is True
    named = identity_of(file, job(), restart=False, run="r2", clear_marker="3")
    assert (named.run, named.clear_marker, named.nameless) == ("r2", "3", False)


@pytest.mark.parametrize(("status", "name"), [("running", "shop.export"), ("completed", "orders")])
def test_an_unfinished_run_keeps_its_job(file: CheckpointFile, status: str, name: str) -> None:
    """What goes on with Airflow's run has its name at the target; what begins has its own."""
    assert job_of_run(file, job()).name == "orders"
    checkpoint = Checkpoint(
        job="shop.export", run="r1", token="0" * 16, generation="g", started_at=0.0, status=status
    )
    file.path.write_text(encode(checkpoint))
    assert job_of_run(file, job()).name == name
