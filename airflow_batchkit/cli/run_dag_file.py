"""Finds one task in one DAG file, and says in one line why it cannot."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from airflow_batchkit.engine.exceptions import UsageError

if TYPE_CHECKING:
    from airflow.sdk import DAG, BaseOperator
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    Task: TypeAlias = BaseOperator | MappedOperator

_FRAME = re.compile(r'^\s*File "([^"]+)", line (\d+)', re.MULTILINE)


def find_task(file: Path, task_id: str, *, dag_id: str | None = None) -> tuple[DAG, Task]:
    """Read a DAG file as Airflow does; return a task that this package can run, with its DAG.

    :param dag_id: which DAG, where several of the file have such a task.
    :raises UsageError: no such file, DAG or task, an error in the file, or an operator of another package.
    """
    dags = _dags(file)
    if dag_id is not None:
        dags = [_named(file, dag_id, dags)]
    having = [dag for dag in dags if task_id in dag.task_dict]
    if not having:
        known = sorted({name for dag in dags for name in dag.task_dict})
        raise UsageError(f"{file}: no task {task_id!r}; its tasks are {_names(known)}")
    if len(having) > 1:
        choices = _names(sorted(dag.dag_id for dag in having))
        raise UsageError(f"{file}: task {task_id!r} is in the DAGs {choices}; choose one with --dag-id")
    return having[0], _ours(file, having[0], task_id)


def _dags(file: Path) -> Sequence[DAG]:
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # below Airflow 3.2
        from airflow.models.dagbag import DagBag  # type: ignore[no-redef]  # the same, where it was

    path = file.resolve()
    if not path.is_file():
        raise UsageError(f"there is no DAG file {str(file)!r}")
    root = str(_root(path))
    if root not in sys.path:
        sys.path.append(root)
    bag = DagBag(dag_folder=path, collect_dags=False)
    # Not in safe mode, which leaves out files that do not mention "dag" and "airflow".
    bag.process_file(str(path), only_if_updated=False, safe_mode=False)  # type: ignore[no-untyped-call]  # Airflow's own
    if bag.import_errors:
        raise UsageError(_import_error(file, path, "\n".join(bag.import_errors.values())))
    if not bag.dags:
        raise UsageError(f"{file}: no DAG in this file")
    return list(bag.dags.values())


def _root(path: Path) -> Path:
    """Return the folder from which the DAG file may import its neighbours: Airflow's own, or the file's."""
    from airflow import settings

    dags_folder = Path(settings.DAGS_FOLDER or path.parent).resolve()
    return dags_folder if path.is_relative_to(dags_folder) else path.parent


def _import_error(file: Path, path: Path, trace: str) -> str:
    # The innermost frame in the file itself is the line that a person can mend.
    lines = [number for name, number in _FRAME.findall(trace) if Path(name).resolve() == path]
    place = f"{file}, line {lines[-1]}" if lines else str(file)
    last = next((line for line in reversed(trace.splitlines()) if line.strip()), "cannot be imported")
    return f"{place}: {last.strip()}"


def _named(file: Path, dag_id: str, dags: Sequence[DAG]) -> DAG:
    for dag in dags:
        if dag.dag_id == dag_id:
            return dag
    known = _names(sorted(dag.dag_id for dag in dags))
    raise UsageError(f"{file}: no DAG {dag_id!r}; its DAGs are {known}")


def _ours(file: Path, dag: DAG, task_id: str) -> Task:
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_batchkit.operators.base import BatchkitOperator

    task = dag.task_dict[task_id]
    operator = task.operator_class if isinstance(task, MappedOperator) else type(task)
    if not issubclass(operator, BatchkitOperator):
        raise UsageError(
            f"{file}: task {task_id!r} is a {task.task_type}, which is not of airflow_batchkit; "
            f"run it with: airflow tasks test {dag.dag_id} {task_id}"
        )
    if operator.execute is not BatchkitOperator.execute:
        raise UsageError(
            f"{file}: {operator.__name__} has an execute() of its own, which only Airflow can run: "
            f"airflow tasks test {dag.dag_id} {task_id}"
        )
    return task


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
