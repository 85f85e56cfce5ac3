"""Which store a task keeps its checkpoints in."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.stores.target import TARGET, target_store
from airflow_batchkit.stores.task_state import TaskStateStore
from airflow_batchkit.stores.variable import TaskScope, VariableStore

if TYPE_CHECKING:
    from airflow_batchkit.engine.checkpoint import CheckpointStore
    from airflow_batchkit.engine.connections import Connections
    from airflow_batchkit.engine.job import Job
    from airflow_batchkit.stores.calls import AirflowCalls

CHOICES = ("auto", "task_state", "variable", TARGET)


def store_for_task(
    choice: str,
    context: Mapping[str, Any],
    *,
    airflow: AirflowCalls,
    retention: timedelta,
    job: Job,
    connections: Connections,
) -> CheckpointStore:
    """Return the store that a task asked for.

    :param choice: ``"auto"`` (the task state store where there is one, else Variables), ``"task_state"``,
        ``"variable"`` or ``"target"`` (beside the output; LOCAL runs and runs over a part, which keep out of
        it, are kept as with ``"auto"``).
    :param context: the running task's context.
    :param airflow: makes the calls.
    :param retention: how long the task state store keeps a value after its last save.
    :param job: what the task does.
    :param connections: makes the client for ``"target"``.
    :raises UsageError: an unknown word, or a store that this Airflow does not have.
    """
    if choice not in CHOICES:
        raise UsageError(f"checkpoint_store={choice!r}: must be one of {', '.join(map(repr, CHOICES))}")
    if choice == TARGET and job.mode == "real":
        return target_store(job, connections, logging.getLogger("airflow_batchkit"))
    state = context.get("task_state_store")
    if choice == "task_state" and state is None:
        raise UsageError(
            "checkpoint_store='task_state' needs Airflow 3.3 or newer; 'auto' takes Variables below that"
        )
    if state is not None and choice != "variable":
        return TaskStateStore(state, airflow=airflow, retention=retention)
    task = context["ti"]
    scope = TaskScope(
        dag_id=task.dag_id, task_id=task.task_id, run_id=task.run_id, map_index=getattr(task, "map_index", -1)
    )
    return VariableStore(scope, airflow=airflow)
