"""``@task.batch_pipeline``: a function becomes the transform of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_batchkit.operators.pipeline import BatchPipelineOperator

if TYPE_CHECKING:
    from airflow.sdk.bases.decorator import TaskDecorator

    from airflow_batchkit.engine.job import Transform


class BatchPipelineDecoratedOperator(BatchPipelineOperator):
    """The operator behind ``@task.batch_pipeline``.

    :param python_callable: the decorated function, called with each document (and the record, if it takes two
        arguments); what it returns is written, None filters.
    :param op_args: must be empty: the function's arguments come from the source.
    :param op_kwargs: must be empty, for the same reason.
    :param multiple_outputs: ignored: the report is one value.
    """

    custom_operator_name: ClassVar[str] = "@task.batch_pipeline"

    def __init__(
        self,
        *,
        task_id: str,
        python_callable: Transform,
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        multiple_outputs: bool | None = None,
        **kwargs: Any,
    ) -> None:
        from airflow.sdk.bases.decorator import get_unique_task_id

        del multiple_outputs
        if op_args or op_kwargs:
            message = f"{task_id}() takes no arguments here: its source calls it with each document"
            raise TypeError(message)
        unique = get_unique_task_id(task_id, kwargs.get("dag"), kwargs.get("task_group"))
        super().__init__(task_id=unique, transform=python_callable, **kwargs)


def batch_pipeline_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Make a task of a function that transforms one document.

    ::

        @task.batch_pipeline(source=ElasticsearchSource(index="orders"), sink=to_lake)
        def without_drafts(order):
            return None if order["draft"] else order

        without_drafts()

    :param python_callable: the function.
    :param multiple_outputs: ignored.
    :param kwargs: ``source``, ``sink`` and everything else that ``BatchPipelineOperator`` takes.
    """
    from airflow.sdk.bases.decorator import task_decorator_factory

    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=BatchPipelineDecoratedOperator,
        **kwargs,
    )
