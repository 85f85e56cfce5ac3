"""Each word for a checkpoint store means one store, and unknown ones are refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.job import Job
from airflow_batchkit.engine.sink import Sink
from airflow_batchkit.hooks.airflow_thread import AirflowThread
from airflow_batchkit.stores.selection import store_for_task
from airflow_batchkit.stores.target import TargetStore
from airflow_batchkit.stores.task_state import TaskStateStore
from airflow_batchkit.stores.variable import VariableStore
from airflow_batchkit.testing.doubles import MemorySink, NoConnections
from tests.support.running_task import FakeTask

TASK = FakeTask(dag_id="d", task_id="t", run_id="r")


def selected(choice: str, context: dict[str, Any], *, sink: Sink | None = None, **changes: Any) -> object:
    """Return the store of a task whose sink is that one."""
    return store_for_task(
        choice,
        context,
        airflow=AirflowThread(),
        retention=timedelta(days=8),
        job=Job(name="j", source=IterableSource(records=list), sink=sink or MemorySink(), **changes),
        connections=NoConnections(),
    )


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
    store = selected(choice, context)
    assert type(store) is expected


@pytest.mark.parametrize(
    ("choice", "message"),
    [("task_state", "needs Airflow 3.3"), ("xcom", "must be one of 'auto'")],
)
def test_refused(choice: str, message: str) -> None:
    """One line says what there is instead."""
    with pytest.raises(UsageError, match=message):
        selected(choice, {"ti": TASK})


@pytest.mark.parametrize(
    ("part", "expected"),
    [({}, TargetStore), ({"local": True}, VariableStore), ({"max_batches": 1}, VariableStore)],
)
def test_only_a_real_run_keeps_its_checkpoint_at_the_target(part: dict[str, Any], expected: type) -> None:
    """A LOCAL run writes nothing there, and a run over a part leaves the whole run's progress alone."""
    sink = ObjectStorageSink(url="file:///nowhere/orders")
    assert type(selected("target", {"ti": TASK}, sink=sink, **part)) is expected


def test_a_sink_that_keeps_nothing_is_refused() -> None:
    """The line names the sink, and the stores that there are instead."""
    with pytest.raises(UsageError, match=r"MemorySink can keep no checkpoint .*'auto' or 'variable'"):
        selected("target", {"ti": TASK})
