"""The operator in Airflow, in this process: how each end of a leg looks, and what the next leg does."""

from __future__ import annotations

import itertools
import logging
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException  # noqa: TID253  # what is tested
from airflow.sdk.exceptions import (  # noqa: TID253  # what is tested
    AirflowRescheduleException,
    AirflowTaskTimeout,
)

from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.engine.exceptions import SupersededError, TransientError
from airflow_batchkit.engine.policies import ErrorBudget, RateLimit
from airflow_batchkit.operators.mirror import PROGRESS_KEY
from tests.support.operator_bench import ALL, RECORDS, Bench, seconds_away
from tests.support.running_task import another_instance, running_task
from tests.support.targets import checkpoint_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("airflow_database")]

_number = itertools.count()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Give a task instance that runs."""
    with running_task(f"operator_{next(_number)}") as context:
        yield Bench(context)


def test_a_run_publishes_and_returns_its_report(bench: Bench) -> None:
    """One leg reads all, publishes, keeps a checkpoint that says completed, and returns the report."""
    report = bench.leg()
    assert report["counts"]["written"] == RECORDS
    assert report["status"] == "completed"
    assert report["job"] == f"{bench.context['ti'].dag_id}.task"
    assert bench.published == ALL
    stored = bench.context["task_state_store"].get("batchkit_checkpoint")
    assert '"completed"' in stored
    assert bench.context["task_state_store"].get(PROGRESS_KEY)["line"].startswith("batch ")


def test_completed_run_does_nothing_again(bench: Bench) -> None:
    """The process died before Airflow heard of the success: the next try returns the stored report."""
    first = bench.leg()
    opened = len(bench.log.opened)
    assert bench.leg() == first
    assert len(bench.log.opened) == opened


def test_cleared_after_success_runs_again(bench: Bench) -> None:
    """Another clear marker restarts a completed run, and its output replaces the older one."""
    bench.leg()
    bench.clear()
    assert bench.leg()["counts"]["read"] == RECORDS
    assert bench.published == ALL
    assert len(bench.target.history) == 2


@pytest.mark.parametrize(("when_cleared", "read_again_from"), [("resume", 60), ("restart", 0)])
def test_cleared_after_failure(bench: Bench, when_cleared: str, read_again_from: int) -> None:
    """A clear of a failed run resumes, or begins anew, as the operator says."""
    bench.log.script.fail("page:orders", ValueError("the source has a bug"), at=8)
    with pytest.raises(ValueError, match="the source has a bug"):
        bench.leg()
    bench.clear()
    bench.leg(when_cleared=when_cleared)
    cursor = bench.log.reads[-1][1]
    resumed_at = 0 if cursor is None else int(cursor["position"])
    assert (resumed_at > 0) is (read_again_from > 0)
    assert bench.published == ALL


@pytest.mark.fault("sigterm", at="airflow")
def test_sigterm_comes_back_later(bench: Bench) -> None:
    """A stop ends the leg at a batch boundary, uses up no retry, and the next leg goes on."""
    operator = bench.operator()
    bench.at_page(5, operator.on_kill)
    with pytest.raises(AirflowRescheduleException) as stopped:
        operator.execute(bench.context)  # type: ignore[arg-type]  # not a whole context
    assert 25 < seconds_away(stopped.value) <= 30
    assert bench.published == []
    assert bench.leg()["legs"] == 2
    assert bench.published == ALL


@pytest.mark.fault("sigterm", at="airflow")
def test_sigterm_before_execute_is_heard(bench: Bench) -> None:
    """A signal that comes before the work began must not be lost."""
    operator = bench.operator()
    operator.on_kill()
    with pytest.raises(AirflowRescheduleException):
        operator.execute(bench.context)  # type: ignore[arg-type]  # not a whole context
    assert bench.published == []


@pytest.mark.fault("sigterm", at="airflow")
def test_sigterm_while_publishing_never_ends_in_success(bench: Bench) -> None:
    """A stop during the last batch is asked for once more before anything is published."""
    operator = bench.operator()
    bench.at_page(RECORDS // 10, operator.on_kill)
    with pytest.raises(AirflowRescheduleException):
        operator.execute(bench.context)  # type: ignore[arg-type]  # not a whole context
    assert bench.published == []
    bench.leg()
    assert bench.published == ALL


def test_transient_failure_after_progress_comes_back(bench: Bench) -> None:
    """A server that went away in the middle costs no retry; the next leg goes on where it was."""
    bench.log.script.fail("page:orders", TransientError("connection refused"), at=5)
    with pytest.raises(AirflowRescheduleException) as later:
        bench.leg()
    assert seconds_away(later.value) > 25
    assert bench.leg()["legs"] == 2
    assert bench.published == ALL


def test_stuck_at_one_cursor_uses_up_a_retry(bench: Bench) -> None:
    """Failures in a row at the same cursor are no longer sat out."""
    bench.log.script.fail("page:orders", TransientError("connection refused"), at=5, times=50)
    ends = []
    for _ in range(5):
        with pytest.raises((AirflowRescheduleException, TransientError)) as end:
            bench.leg()
        ends.append(end.type)
        if end.type is TransientError:
            break
    assert ends[-1] is TransientError
    assert len(ends) in {3, 4}


def test_too_many_legs_fail(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes back for ever."""
    monkeypatch.setenv("AIRFLOW__BATCHKIT__MAX_LEGS", "2")
    for _ in range(2):
        operator = bench.operator()
        operator.on_kill()
        with pytest.raises((AirflowRescheduleException, AirflowFailException)) as end:
            operator.execute(bench.context)  # type: ignore[arg-type]  # not a whole context
    assert end.type is AirflowFailException
    assert "max_legs" in str(end.value)


def test_permanent_failure_uses_no_retries(bench: Bench) -> None:
    """What would fail again fails at once, in one line, with the original as its cause."""

    def poison(record: dict[str, Any]) -> dict[str, Any]:
        raise ValueError(f"no price in {record['id']}")

    with pytest.raises(AirflowFailException, match="ErrorBudgetExceededError: ") as failed:
        bench.leg(transform=poison)
    assert "\n" not in str(failed.value)
    assert failed.value.__cause__ is not None
    assert bench.published == []


def test_usage_errors_come_before_any_work(bench: Bench) -> None:
    """Settings that contradict each other fail before the source is opened."""
    with pytest.raises(AirflowFailException, match="UsageError: when_cleared='maybe'"):
        bench.leg(when_cleared="maybe")
    with pytest.raises(AirflowFailException, match="no place to keep them"):
        bench.leg(error_budget=ErrorBudget(max_dead_letters=3))
    with pytest.raises(AirflowFailException, match="can keep no checkpoint beside its output"):
        bench.leg(checkpoint_store="target")
    with pytest.raises(AirflowFailException, match="local='perhaps'"):
        bench.leg(local="perhaps")
    assert bench.log.opened == []


@pytest.mark.fault("two-at-once", at="airflow")
def test_superseded_leg_ends_quietly(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A task that was cleared while it ran stops at its next save and calls Airflow no more."""
    operator = bench.operator(throttle=RateLimit(records_per_second=50))
    bench.at_page(4, lambda: another_instance(bench.context))
    with caplog.at_level(logging.WARNING), pytest.raises(AirflowRescheduleException) as end:
        operator.execute(bench.context)  # type: ignore[arg-type]  # not a whole context
    assert isinstance(end.value.__cause__, SupersededError)
    assert "superseded: " in caplog.text
    assert bench.published == []


def test_timeout_makes_no_further_call(bench: Bench) -> None:
    """``execution_timeout`` raises anywhere: it comes out as it is, and the next try resumes."""

    def time_out(*_: object) -> None:
        raise AirflowTaskTimeout

    before = signal.signal(signal.SIGALRM, time_out)
    bench.at_page(6, lambda: signal.raise_signal(signal.SIGALRM))
    try:
        with pytest.raises(AirflowTaskTimeout):
            bench.leg()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert bench.published == []
    bench.leg()
    assert bench.published == ALL


def test_variables_serve_where_there_is_no_state_store(bench: Bench) -> None:
    """Below Airflow 3.3 the checkpoint is kept in a Variable, and resumed from it."""
    del bench.context["task_state_store"]
    bench.log.script.fail("page:orders", TransientError("connection refused"), at=8)
    with pytest.raises(AirflowRescheduleException):
        bench.leg()
    bench.leg()
    assert bench.log.reads[-1][1] is not None
    assert bench.published == ALL


def test_a_clear_that_wipes_airflows_state_resumes_from_the_target(bench: Bench, tmp_path: Path) -> None:
    """Airflow 3.4 removes the task state when a task is cleared; what lies beside the output stays."""
    sink = ObjectStorageSink(url=f"file://{tmp_path}/out")
    bench.log.script.fail("page:orders", ValueError("the source has a bug"), at=8)
    with pytest.raises(ValueError, match="the source has a bug"):
        bench.leg(sink=sink, checkpoint_store="target")
    assert bench.context["task_state_store"].get("batchkit_checkpoint") is None
    saved = checkpoint_in(tmp_path / "out").counts.read
    assert saved > 0

    bench.clear()
    bench.context["task_state_store"].clear()
    report = bench.leg(sink=sink, checkpoint_store="target")
    assert report["counts"]["read"] == RECORDS
    assert report["legs"] == 1  # a clear gives a run all its legs again
    cursor = bench.log.reads[-1][1]
    assert cursor is not None
    assert cursor["position"] >= saved
    assert bench.leg(sink=sink, checkpoint_store="target") == report


def test_target_is_refused_where_a_sink_keeps_nothing(bench: Bench) -> None:
    """One line before any work, and no retry: it would fail again."""
    with pytest.raises(AirflowFailException, match="MemorySink can keep no checkpoint beside its output"):
        bench.leg(checkpoint_store="target")
    assert bench.log.opened == []


def test_long_throttle_gives_the_slot_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that is longer than the site allows is spent outside the worker slot."""
    monkeypatch.setenv("AIRFLOW__BATCHKIT__MAX_WAIT_IN_SLOT_SECONDS", "0.5")
    with pytest.raises(AirflowRescheduleException):
        bench.leg(throttle=RateLimit(records_per_second=4))


@pytest.mark.parametrize("local", [True, "True", "true"])
def test_local_mode_writes_nothing(bench: Bench, local: Any, caplog: pytest.LogCaptureFixture) -> None:
    """LOCAL mode reads and transforms, says what it does not write, and leaves the real checkpoint alone."""
    with caplog.at_level(logging.INFO):
        report = bench.leg(local=local)
    assert report["counts"]["skipped"] == RECORDS
    assert "skipped because we are in LOCAL mode" in caplog.text
    assert bench.published == []
    assert bench.context["task_state_store"].get("batchkit_checkpoint") is None


def test_restart_begins_anew(bench: Bench) -> None:
    """``restart``, asked with a clear, leaves an unfinished run's progress behind."""
    bench.log.script.fail("page:orders", TransientError("connection refused"), at=8)
    with pytest.raises(AirflowRescheduleException):
        bench.leg()
    bench.clear()
    bench.leg(restart="True")
    assert bench.log.reads[-1][1] is None
    assert bench.published == ALL


def test_plan_writes_nothing(bench: Bench) -> None:
    """A plan says what would be done, and does none of it."""
    plan = bench.leg(plan_only=True)
    assert plan["total"] == RECORDS
    assert bench.log.reads == []
    assert bench.target.owner is None
    assert bench.context["task_state_store"].get("batchkit_checkpoint") is None


def test_start_block_names_the_environment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log begins with settings and environment."""
    monkeypatch.setenv("AIRFLOW__BATCHKIT__ENVIRONMENT_NAME", "staging")
    with caplog.at_level(logging.INFO):
        bench.leg()
    assert "environment.name = staging" in caplog.text
    assert "settings.batch.max_records = 10" in caplog.text


def test_retention_is_longer_than_a_checkpoint_is_of_use(bench: Bench) -> None:
    """The store keeps a checkpoint a day longer than it may be resumed, and not for ever."""
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session

    bench.leg()
    with create_session() as session:
        row = session.query(TaskStateStoreModel).filter_by(
            key="batchkit_checkpoint", dag_id=bench.context["ti"].dag_id
        )
        expires_at = row.one().expires_at
    assert expires_at is not None
    left = expires_at - datetime.now(tz=UTC)
    assert timedelta(days=7.9) < left <= timedelta(days=8)
