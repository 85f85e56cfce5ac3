"""The task state store is fenced by the task instance, and what people edit in it is not trusted."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.engine.checkpoint import decode
from airflow_batchkit.engine.exceptions import CannotResumeError, SupersededError, TransientError
from airflow_batchkit.hooks.airflow_thread import AirflowThread
from airflow_batchkit.stores.task_state import TaskStateStore
from tests.support.running_task import another_instance, running_task

if TYPE_CHECKING:
    from collections.abc import Iterator

RETENTION = timedelta(days=8)


@pytest.fixture
def task(airflow_database: None) -> Iterator[dict[str, Any]]:
    """Give the context of a task that runs."""
    del airflow_database
    with running_task("task_state") as context:
        yield context


@pytest.fixture
def store(task: dict[str, Any]) -> Iterator[TaskStateStore]:
    """Give the store of that task."""
    with AirflowThread() as airflow:
        yield TaskStateStore(task["task_state_store"], airflow=airflow, retention=RETENTION)


@pytest.mark.airflow
def test_another_instance_supersedes(store: TaskStateStore, task: dict[str, Any]) -> None:
    """Once the task was retried or cleared, its older process can neither save nor load "nothing"."""
    store.save("key", "value")
    another_instance(task)
    with pytest.raises(SupersededError):
        store.save("key", "later value")
    with pytest.raises(SupersededError):
        store.load("key")
    with pytest.raises(SupersededError):
        store.load("absent")


@pytest.mark.airflow
def test_value_edited_by_hand(store: TaskStateStore, task: dict[str, Any]) -> None:
    """JSON that someone put there in the UI is read as text, and refused for what it is."""
    task["task_state_store"].set("key", {"status": "completed"})
    stored = store.load("key")
    assert stored is not None
    with pytest.raises(CannotResumeError, match="damaged"):
        decode(stored)


def test_backend_of_the_site_that_fails() -> None:
    """A state store backend may raise anything: the next try may work."""

    class Backend:
        def get(self, *_: object) -> Any:
            raise RuntimeError("bucket gone")

    with AirflowThread() as airflow:
        store = TaskStateStore(Backend(), airflow=airflow, retention=RETENTION)  # type: ignore[arg-type]  # get only
        with pytest.raises(
            TransientError, match=r"the task state store failed \(RuntimeError: bucket gone\)"
        ):
            store.load("key")
