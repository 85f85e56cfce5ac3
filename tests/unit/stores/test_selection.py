"""Each word for a checkpoint store means one store, and unknown ones are refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.hooks.airflow_thread import AirflowThread
from airflow_batchkit.stores.selection import store_for_task
from airflow_batchkit.stores.task_state import TaskStateStore
from airflow_batchkit.stores.variable import VariableStore
from tests.support.running_task import FakeTask

TASK = FakeTask(dag_id="d", task_id="t", run_id="r")


@pytest.mark.parametrize(
    ("choice", "context", "expected"),
    [
        ("auto", {"ti": TASK, "task_state_store": {}}, TaskStateStore),
        ("auto", {"ti": TASK}, VariableStore),
        ("task_state", {"ti": TASK, "task_state_store": {}}, TaskStateStore),
        ("variable", {"ti": TASK, "task_state_store": {}}, VariableStore),
    ],
)
def test_choices(choice: str, context: dict[str, Any], expected: type) -> None:
    """``auto`` takes the task state store where there is one."""
    store = store_for_task(choice, context, airflow=AirflowThread(), retention=timedelta(days=8))
    assert type(store) is expected


@pytest.mark.parametrize(
    ("choice", "message"),
    [("task_state", "needs Airflow 3.3"), ("target", "must be one of 'auto'"), ("xcom", "must be one of")],
)
def test_refused(choice: str, message: str) -> None:
    """One line says what there is instead."""
    with pytest.raises(UsageError, match=message):
        store_for_task(choice, {"ti": TASK}, airflow=AirflowThread(), retention=timedelta(days=8))
