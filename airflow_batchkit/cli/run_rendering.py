"""Renders a task's templates for one run, with Airflow's own context and renderer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeGuard

from airflow_batchkit.cli.run_dates import RunDates
from airflow_batchkit.engine.exceptions import UsageError

if TYPE_CHECKING:
    from airflow.sdk.api.datamodels._generated import DagRun
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    from airflow_batchkit.cli.run_dag_file import Task
    from airflow_batchkit.operators.base import BatchkitOperator


@dataclass(frozen=True, slots=True, kw_only=True)
class HandRun:
    """The run that templates are rendered for.

    :param run_id: its name, as ``{{ run_id }}`` gives it.
    :param dates: its logical date and data interval.
    :param conf: its configuration, as the trigger form sends it; overrides params.
    :param map_index: which instance of a mapped task; -1 for a task that is not mapped.
    """

    run_id: str
    dates: RunDates
    conf: Mapping[str, Any]
    map_index: int = -1


def rendered(task: Task, run: HandRun) -> BatchkitOperator:
    """Return a copy of the task with all templates rendered, as a worker has it before ``execute``.

    :raises UsageError: a template that cannot be rendered, a param that is invalid, a mapped task without its
        index (or the other way round).
    """
    from airflow_batchkit.operators.base import BatchkitOperator

    _check_map_index(task, run.map_index)
    try:
        instance = _instance(task, run)
        context = instance.get_template_context()
        instance.task = instance.task.prepare_for_execution()
        context["task"] = instance.task
        instance.render_templates(context=context, jinja_env=task.get_template_env())
    except Exception as error:
        raise UsageError(_in_one_line(error, run)) from error
    ready = context["task"]
    if not isinstance(ready, BatchkitOperator):
        raise TypeError(type(ready).__name__)
    return ready


def _check_map_index(task: Task, map_index: int) -> None:
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    if not isinstance(task, MappedOperator):
        if map_index >= 0:
            raise UsageError(f"task {task.task_id!r} is not mapped: leave --map-index out")
        return
    if map_index < 0:
        raise UsageError(f"task {task.task_id!r} is mapped: say which of its instances with --map-index N")
    expanded = task._get_specified_expand_input().value  # noqa: SLF001  # the one place that knows both kinds
    lengths = [len(values) for values in expanded.values()] if _is_literal(expanded) else []
    # Airflow itself takes an index that is too large for one of the first ones.
    if lengths and map_index >= math.prod(lengths):
        raise UsageError(f"--map-index {map_index}: task {task.task_id!r} has {math.prod(lengths)} instances")


def _is_literal(expanded: object) -> TypeGuard[Mapping[str, Sized]]:
    return isinstance(expanded, Mapping) and all(isinstance(values, Sized) for values in expanded.values())


def _instance(task: Task, run: HandRun) -> RuntimeTaskInstance:
    from uuid import uuid4

    from airflow.sdk.api.datamodels._generated import TaskInstanceState, TIRunContext
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    max_tries = task.retries or 0
    return RuntimeTaskInstance.model_construct(
        id=uuid4(),
        dag_version_id=uuid4(),
        dag_id=task.dag_id,
        task_id=task.task_id,
        run_id=run.run_id,
        map_index=run.map_index,
        try_number=1,
        max_tries=max_tries,
        task=task,
        bundle_instance=None,
        _ti_context_from_server=TIRunContext(dag_run=_dag_run(task.dag_id, run), max_tries=max_tries),
        start_date=datetime.now(tz=UTC),
        state=TaskInstanceState.RUNNING,
    )


def _dag_run(dag_id: str, run: HandRun) -> DagRun:
    from airflow.sdk.api.datamodels._generated import DagRun

    dates = run.dates
    values: dict[str, Any] = {
        "dag_id": dag_id,
        "run_id": run.run_id,
        "logical_date": dates.logical_date,
        "data_interval_start": dates.data_interval_start,
        "data_interval_end": dates.data_interval_end,
        "run_after": dates.run_after,
        "start_date": datetime.now(tz=UTC),
        "end_date": None,
        "run_type": "manual",
        "state": "running",
        "conf": dict(run.conf),
        "consumed_asset_events": [],
        "partition_key": None,
    }
    # Each version of Airflow has a few fields more, and refuses those that it does not know.
    return DagRun.model_validate({name: values[name] for name in values if name in DagRun.model_fields})


def _in_one_line(error: Exception, run: HandRun) -> str:
    from airflow.providers.common.compat.sdk import AirflowNotFoundException
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

    said = " ".join(str(error).split())
    if isinstance(error, AirflowRuntimeError) and error.error.error == ErrorType.VARIABLE_NOT_FOUND:
        name = str((error.error.detail or {}).get("message", "a variable is not set")).removesuffix(
            " not found"
        )
        return f"{name} is not set: set AIRFLOW_VAR_<NAME> in the environment, or give --var NAME=VALUE"
    if isinstance(error, AirflowNotFoundException):
        return f"{said}: set AIRFLOW_CONN_<ID> in the environment"
    if type(error).__name__ in {"ParamValidationError", "AirflowFailException", "UsageError"}:
        hint = "; give --logical-date" if run.dates.logical_date is None and "is undefined" in said else ""
        return f"{said}{hint}"
    return f"a template cannot be rendered: {type(error).__name__}: {said}"
