"""Shows a run's progress in Airflow: in the task state store and in XCom, at most once a second."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from typing_extensions import override

from airflow_batchkit.engine.exceptions import StoppedError, SupersededError
from airflow_batchkit.engine.listener import Listener
from airflow_batchkit.operators.identity import CHECKPOINT_KEY

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_batchkit.engine.checkpoint import Checkpoint
    from airflow_batchkit.engine.progress import Progress
    from airflow_batchkit.engine.report import Report
    from airflow_batchkit.hooks.airflow_thread import AirflowThread

PROGRESS_KEY = "progress"
XCOM_PROGRESS_KEY = "batchkit_progress"
EVERY_SECONDS = 1.0


class AirflowMirror(Listener):
    """A mirror to look at: XComs are deleted when a try begins, so nothing is ever resumed from here.

    :param context: the running task's context.
    :param airflow: makes the calls, without the run waiting for them.
    :param retention: how long the task state store keeps the progress.
    """

    def __init__(self, context: Mapping[str, Any], *, airflow: AirflowThread, retention: timedelta) -> None:
        self._task = context["ti"]
        self._state = context.get("task_state_store")
        self._airflow = airflow
        self._retention = retention
        self._checkpoint: dict[str, Any] | None = None
        self._progress: Progress | None = None
        self._next = float("-inf")
        self.legs = 0

    @override
    def on_start(self, facts: Mapping[str, Any]) -> None:
        self.legs = int(facts["leg"])

    @override
    def on_saved(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = msgspec.to_builtins(checkpoint)

    @override
    def on_progress(self, progress: Progress) -> None:
        self._progress = progress
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY_SECONDS
        shown, checkpoint, self._checkpoint = progress.to_dict(), self._checkpoint, None
        self._airflow.post("mirror of the progress", self._show, shown, checkpoint)

    @override
    def on_finish(self, report: Report) -> None:
        self._show_last("completed", self._airflow.call)

    @override
    def on_failure(self, error: BaseException) -> None:
        if isinstance(error, StoppedError):  # a process that is to end has no time to wait for an answer
            self._show_last("waiting", self._airflow.post_last)
        elif not isinstance(error, SupersededError):
            self._show_last("failed", self._airflow.call)

    def _show_last(self, status: str, make: Callable[..., object]) -> None:
        # What is shown longest is the last: it must not be the moment before it.
        if self._progress is not None:
            last = dataclasses.replace(self._progress, status=status)
            make("mirror of the progress", self._show, last.to_dict(), self._checkpoint)

    def _show(self, progress: dict[str, Any], checkpoint: dict[str, Any] | None) -> None:
        if self._state is not None:
            self._state.set(PROGRESS_KEY, progress, retention=self._retention)
        self._task.xcom_push(key=XCOM_PROGRESS_KEY, value=progress)
        if checkpoint is not None:
            self._task.xcom_push(key=CHECKPOINT_KEY, value=checkpoint)
