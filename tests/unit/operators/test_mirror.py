"""Progress is shown in Airflow at most once a second, and never makes the run wait."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_batchkit.engine.checkpoint import Checkpoint
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    PermanentError,
    StoppedError,
    SupersededError,
)
from airflow_batchkit.engine.progress import Progress
from airflow_batchkit.hooks.airflow_thread import AirflowThread
from airflow_batchkit.operators import mirror
from tests.support.running_task import FakeTask


class FakeState:
    """A task state store in memory."""

    def __init__(self) -> None:
        self.sets: list[tuple[str, Any, timedelta | None]] = []

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """Note what was set."""
        self.sets.append((key, value, retention))


def progress(batches: int) -> Progress:
    """Make some progress."""
    return Progress(
        batches=batches,
        batches_total=None,
        read=batches * 10,
        total=None,
        records_per_second=1.0,
        dead_lettered=0,
        eta_seconds=None,
        active_seconds=1.0,
        throttled_seconds=0.0,
        bytes_read=1,
        cursor="0: 1",
    )


@pytest.fixture
def task() -> FakeTask:
    """Give a task instance that remembers its XComs."""
    return FakeTask(dag_id="d", task_id="t", run_id="r")


def test_progress_and_checkpoint_are_shown(task: FakeTask) -> None:
    """The state store has the progress, XCom has both."""
    state = FakeState()
    with AirflowThread() as airflow:
        shown = mirror.AirflowMirror(
            {"ti": task, "task_state_store": state}, airflow=airflow, retention=timedelta(days=8)
        )
        shown.on_start({"leg": 4})
        shown.on_saved(Checkpoint(run="r", token="t", generation="g", started_at=1.0))
        shown.on_progress(progress(1))
    assert shown.legs == 4
    assert [(key, value["batches"], kept) for key, value, kept in state.sets] == [
        ("progress", 1, timedelta(days=8))
    ]
    assert task.xcoms["batchkit_progress"]["line"].startswith("batch 1 · 10 records")
    assert task.xcoms["batchkit_checkpoint"]["run"] == "r"


def test_at_most_once_a_second(task: FakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many windows a second make one call a second."""
    now = [100.0]
    monkeypatch.setattr("airflow_batchkit.operators.mirror.time.monotonic", lambda: now[0])
    with AirflowThread() as airflow:
        shown = mirror.AirflowMirror({"ti": task}, airflow=airflow, retention=timedelta(days=8))
        shown.on_progress(progress(1))
        shown.on_progress(progress(2))
        airflow.call("wait", lambda: None)
        assert task.xcoms["batchkit_progress"]["batches"] == 1
        now[0] += 1.0
        shown.on_progress(progress(3))
    assert task.xcoms["batchkit_progress"]["batches"] == 3


def test_failures_do_not_disturb(task: FakeTask, caplog: pytest.LogCaptureFixture) -> None:
    """A mirror that cannot be written is told in the log, and nothing more."""

    class BrokenState:
        def set(self, *_: object, **__: object) -> None:
            raise ConnectionResetError

    with AirflowThread() as airflow:
        shown = mirror.AirflowMirror(
            {"ti": task, "task_state_store": BrokenState()}, airflow=airflow, retention=timedelta(days=8)
        )
        shown.on_progress(progress(1))
    assert "mirror of the progress" in caplog.text


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (None, "completed"),
        (StoppedError("SIGTERM"), "waiting"),
        (PermanentError("disk full"), "failed"),
        (SupersededError("gone"), "running"),
    ],
)
def test_last_progress_is_shown(task: FakeTask, end: BatchkitError | None, status: str) -> None:
    """What stays to be seen is the end, whatever came just before it; a superseded leg is silent."""
    with AirflowThread() as airflow:
        shown = mirror.AirflowMirror({"ti": task}, airflow=airflow, retention=timedelta(days=8))
        shown.on_progress(progress(1))
        shown.on_progress(progress(2))
        if end is None:
            shown.on_finish(None)  # type: ignore[arg-type]  # the report is not looked at
        else:
            shown.on_failure(end)
    last = task.xcoms["batchkit_progress"]
    assert (last["batches"], last["status"]) == ((1 if status == "running" else 2), status)
