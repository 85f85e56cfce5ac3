"""Rules 9 and 10: LOCAL, partial and real runs never mix; `now` is one instant in all legs of a run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import CannotResumeError, RecordError, StoppedError, TransientError
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.policies import BatchRetry, ErrorBudget
from airflow_batchkit.testing.doubles import FakeClock, made_up_records
from tests.support.legs import KEY, HurryingClock, Recorder, World, at


def test_rule_9_each_mode_keeps_its_own_checkpoint() -> None:
    """An unfinished real run is neither seen nor touched by a LOCAL and a partial run beside it."""
    world = World(batch_retry=BatchRetry(max_tries=1), clock=HurryingClock())
    world.target.script.fail("write", TransientError("reset"), at=3)
    with pytest.raises(StoppedError):
        world.run()
    real = world.store.values[KEY]

    world.target.owner = None
    world.run(world.job(local=True))
    world.run(world.job(max_batches=1))

    assert world.store.values[KEY] == real
    assert {key for key, _ in world.store.history} == {KEY, f"{KEY}.local", f"{KEY}.partial"}
    partial = world.store.checkpoint(f"{KEY}.partial")
    assert partial is not None
    assert partial.mode == "partial"


@pytest.mark.parametrize("mode", ["local", "partial"])
def test_rule_9_a_checkpoint_of_another_mode_is_refused(mode: str) -> None:
    """Where it lies under the wrong key, its own word for the mode stops it."""
    world = World()
    world.target.script.fail("write", TransientError("reset"), times=99)
    with pytest.raises(StoppedError):
        world.run()
    world.store.values[f"{KEY}.{mode}"] = world.store.values[KEY]
    world.target.owner = None

    with pytest.raises(CannotResumeError, match=f"of a real run, this is a {mode} run"):
        world.run(world.job(local=mode == "local", max_batches=1 if mode == "partial" else None))


def test_rule_9_local_writes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """LOCAL: no effect on sink or dead letters; the records are counted as skipped, and named in the log."""

    def fails(document: dict[str, Any]) -> dict[str, Any]:
        if document["id"] == 7:
            raise RecordError("bad")
        return document

    world = World(transform=fails, local=True, error_budget=ErrorBudget(max_dead_letters=1))
    effects: list[str] = []
    recorder = Recorder()
    with caplog.at_level("INFO"), probing(lambda name, _: effects.append(name)):
        report = world.run(world.job(dead_letters=world.letters), listeners=[recorder])

    assert {name.partition(".")[0] for name in effects} == {"checkpoint"}
    assert (report.status, report.mode) == ("skipped", "local")
    assert report.counts["skipped"] == 44
    assert report.counts["written"] == 0
    assert world.target.published is None
    assert recorder.named("dead_letters") == [["7"]]
    assert recorder.named("publishing") == []
    assert "write of record '1' skipped because we are in LOCAL mode" in caplog.text


def test_rule_9_local_neither_completes_nor_is_resumed() -> None:
    """A LOCAL run leaves no checkpoint: the next one reads everything again."""
    world = World(local=True)
    for _ in range(2):
        assert world.run().counts["read"] == 45

    assert world.store.values == {}
    assert len(world.log.reads) == 2


def test_rule_9_local_gives_up_any_number_of_records() -> None:
    """Nothing is lost in LOCAL mode, so the error budget does not end the look around."""

    def fails(document: dict[str, Any]) -> dict[str, Any]:
        raise ValueError(document["id"])

    report = World(transform=fails, local=True).run()

    assert report.counts["dead_lettered"] == 45


def test_a_partial_run_begins_where_it_is_told() -> None:
    """start_at reaches the source, and the records before it are not read."""
    world = World(start_at="40")
    report = world.run()

    assert (report.mode, report.counts["read"]) == ("partial", 5)
    assert world.log.opened[0].start_at == "40"
    assert world.ids == ["41", "42", "43", "44", "45"]


@pytest.mark.parametrize("style", ["records", "windows"])
def test_a_partial_run_ends_after_max_batches(style: str) -> None:
    """Two batches are two batches, however many are read ahead or in flight."""
    world = World({"a": made_up_records(200)}, source={"style": style, "window_records": 10}, max_batches=2)
    report = world.run()

    assert report.counts["batches"] == 2
    assert world.ids == [str(number) for number in range(1, 21)]
    assert report.status == "completed"


def test_a_partial_run_of_large_windows_ends_at_the_end_of_one() -> None:
    """A window is committed as a whole: with three batches to a window, four batches become six."""
    world = World(
        {"a": made_up_records(200)}, source={"style": "windows", "window_records": 30}, max_batches=4
    )
    assert world.run().counts["batches"] == 6
    assert world.ids == [str(number) for number in range(1, 61)]


def test_a_partial_run_counts_its_batches_over_all_legs() -> None:
    """A leg in the middle does not make max_batches begin anew."""
    world = World(
        {"a": made_up_records(200)}, max_batches=3, batch_retry=BatchRetry(max_tries=1), clock=HurryingClock()
    )
    world.target.script.fail("write", TransientError("reset"), at=2)
    report = world.run_to_end()

    assert report.legs == 2
    assert report.counts["batches"] == 3
    assert world.ids == [str(number) for number in range(1, 31)]


def test_an_unfinished_partial_run_is_not_resumed_as_another_part() -> None:
    """start_at is part of what a partial run is: changed, its cursor means something else."""
    world = World(batch_retry=BatchRetry(max_tries=1))
    world.target.script.fail("write", TransientError("reset"))
    with pytest.raises(StoppedError):
        world.run(world.job(start_at="10"))

    with pytest.raises(CannotResumeError, match="start_at"):
        world.run(world.job(start_at="20"))


def test_a_completed_partial_run_is_not_the_answer_to_another_start_at() -> None:
    """The stored report is returned for the same part only."""
    world = World()
    world.run(world.job(start_at="40"))
    again = world.run(world.job(start_at="40"))
    other = world.run(world.job(start_at="30"))

    assert (again.counts["read"], other.counts["read"]) == (5, 15)
    assert len(world.log.opened) == 2


def test_rule_10_now_is_one_instant_in_all_legs() -> None:
    """Every leg opens source and sink with the time at which the run first started."""
    clock = FakeClock()
    world = World(batch_retry=BatchRetry(max_tries=1), clock=clock)
    for number in (1, 2):
        world.target.script.fail("write", TransientError("reset"), at=number)
    for _ in range(3):
        try:
            report = world.run(max_stuck_legs=9)
        except StoppedError:
            clock.advance(3600)

    first = datetime.fromtimestamp(clock._start, tz=UTC)
    assert len(world.log.opened) > 1
    assert {context.now for context in world.log.opened} == {first}
    assert report.started_at == clock._start


def test_rule_10_a_run_that_begins_anew_has_a_new_now() -> None:
    """A clear after success is another run of the query: `now` moves."""
    clock = FakeClock()
    world = World(clock=clock)
    world.run(identity=at("1"))
    clock.advance(3600)
    world.run(identity=at("2"))

    assert (world.log.opened[1].now - world.log.opened[0].now).total_seconds() == 3600


def test_rule_10_a_plan_looks_with_the_runs_own_now() -> None:
    """What is planned for a run in the middle is what its next leg will ask for."""
    clock = FakeClock()
    world = World(clock=clock, batch_retry=BatchRetry(max_tries=1))
    world.target.script.fail("write", TransientError("reset"))
    with pytest.raises(StoppedError):
        world.run()
    clock.advance(3600)
    plan = world.leg().plan()

    assert world.log.opened[1].now == world.log.opened[0].now
    assert plan.to_dict()["total"] == 45
    assert "resumes" in plan.decision


def test_a_plan_has_no_effect() -> None:
    """It claims, reads and writes nothing, and closes what it opened."""
    world = World()
    effects: list[str] = []
    with probing(lambda name, _: effects.append(name)):
        plan = world.leg().plan()

    assert effects == []
    assert world.log.reads == []
    assert world.log.closes == 1
    assert (plan.partitions, plan.already_read) == (1, 0)
    assert plan.decision == "no checkpoint: the run begins"
