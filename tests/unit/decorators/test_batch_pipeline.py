"""A decorated function is the transform of a pipeline."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG, task  # noqa: TID253  # what is tested

from airflow_batchkit.testing.doubles import MemorySink, MemorySource, MemoryTarget, made_up_records
from tests.support.airflow import run_dag

# For the type checker a task takes its function's arguments; this one's come from the source.
batch_pipeline: Any = task.batch_pipeline


def even_only(record: dict[str, Any]) -> dict[str, Any] | None:
    """Keep half of the records."""
    return record if record["id"] % 2 == 0 else None


def made(target: MemoryTarget | None = None) -> DAG:
    """Make a DAG of one decorated function."""
    with DAG("decorated", schedule=None) as dag:
        batch_pipeline(
            source=MemorySource(partitions={"orders": made_up_records(10)}),
            sink=MemorySink(target=target or MemoryTarget()),
        )(even_only)()
    return dag


@pytest.mark.airflow
@pytest.mark.usefixtures("airflow_database")
def test_function_is_the_transform() -> None:
    """The function is called with each document; None filters; the report is the task's result."""
    target = MemoryTarget()
    run = run_dag(made(target))
    assert run.state == "success"
    assert [record["id"] for record in target.records()] == [2, 4, 6, 8, 10]


def test_the_ui_names_the_decorator() -> None:
    """The task is named after the function, its operator after the decorator."""
    operator = made().get_task("even_only")
    assert operator.operator_name == "@task.batch_pipeline"
    assert operator.doc_md == "Keep half of the records."


def test_same_function_twice_gets_a_number() -> None:
    """As with Airflow's own decorators, a second call makes a second task."""
    with DAG("twice", schedule=None) as dag:
        decorated = batch_pipeline(
            source=MemorySource(partitions={"o": []}), sink=MemorySink(target=MemoryTarget())
        )(even_only)
        decorated()
        decorated()
    assert sorted(dag.task_ids) == ["even_only", "even_only__1"]


def test_arguments_come_from_the_source() -> None:
    """Calling the task with arguments would do nothing: it is refused."""
    with DAG("arguments", schedule=None), pytest.raises(TypeError, match="takes no arguments here"):
        batch_pipeline(source=MemorySource(partitions={"o": []}), sink=MemorySink(target=MemoryTarget()))(
            even_only
        )({"id": 1})


def test_serialised_twice_is_equal() -> None:
    """Parsing the file again makes no new version of the DAG."""
    from airflow.serialization.serialized_objects import DagSerialization

    first, second = (DagSerialization.to_dict(made()) for _ in range(2))
    assert first == second
