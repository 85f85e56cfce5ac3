"""The generic operator: any source, any transform, any sink."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.operators.base import BatchkitOperator

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_batchkit.engine.sink import Sink
    from airflow_batchkit.engine.source import Source


class BatchPipelineOperator(BatchkitOperator):
    """Moves records from a source to a sink, in batches.

    Takes all arguments of :class:`~airflow_batchkit.operators.base.BatchkitOperator` besides.

    :param source: where records come from; its own templates are rendered.
    :param sink: where they go; its own templates are rendered.
    """

    template_fields: Collection[str] = ("source", "sink", *BatchkitOperator.template_fields)
    ui_color = "#e8f4ef"

    def __init__(self, *, source: Source, sink: Sink, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.sink = sink

    @override
    def source_value(self) -> Source:
        return self.source

    @override
    def sink_value(self) -> Sink:
        return self.sink
