"""Exports an Elasticsearch index, or several, to a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch import ElasticsearchSource
from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.operators.base import BatchkitOperator

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from airflow_batchkit.engine.sink import Sink
    from airflow_batchkit.engine.source import Source


class ElasticsearchToS3Operator(BatchkitOperator):
    """Writes every document of an index as one line of gzipped JSON, and publishes the whole in one step.

    Takes all arguments of :class:`~airflow_batchkit.operators.base.BatchkitOperator` besides. Below the
    prefix lie ``part-<partition>-<number>-<generation>.ndjson.gz``, ``manifest.json`` and ``_SUCCESS``; a
    line is ``{"_id": …, <the document's own fields>}``. Running twice leaves what running once leaves.

    :param index: one concrete index, or a list of them (templated).
    :param s3_bucket: the bucket (templated).
    :param s3_prefix: everything below belongs to this job (templated): ``"orders/ds={{ ds }}"``.
    :param query: the body of ``"query"`` (templated). Default: all documents.
    :param elasticsearch_conn_id: connection of type ``elasticsearch``. Default ``elasticsearch_default``.
    :param aws_conn_id: connection of type ``aws``. Default ``aws_default``.
    :param compression: ``"gzip"``, ``"zstd"`` (needs the extra ``zstd``) or None. Default ``"gzip"``.
    :param date_field: lets ``start_at`` be a date: documents from then on in this field (templated).
    """

    template_fields: Collection[str] = (
        "index",
        "query",
        "s3_bucket",
        "s3_prefix",
        "elasticsearch_conn_id",
        "aws_conn_id",
        "date_field",
        *BatchkitOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"query": "json"}
    ui_color = "#e8f4ef"

    def __init__(
        self,
        *,
        index: str | Sequence[str],
        s3_bucket: str,
        s3_prefix: str,
        query: Mapping[str, Any] | None = None,
        elasticsearch_conn_id: str = "elasticsearch_default",
        aws_conn_id: str = "aws_default",
        compression: str | None = "gzip",
        date_field: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.index = index
        self.s3_bucket = s3_bucket
        self.s3_prefix = s3_prefix
        self.query = query
        self.elasticsearch_conn_id = elasticsearch_conn_id
        self.aws_conn_id = aws_conn_id
        self.compression = compression
        self.date_field = date_field

    @override
    def source_value(self) -> Source:
        return ElasticsearchSource(
            conn_id=self.elasticsearch_conn_id,
            index=self.index,
            query=self.query,
            date_field=self.date_field,
        )

    @override
    def sink_value(self) -> Sink:
        if "/" in self.s3_bucket or not self.s3_bucket:
            raise UsageError(
                f"s3_bucket={self.s3_bucket!r}: must be the bucket's name alone, without s3:// or a path"
            )
        return ObjectStorageSink(
            url=f"s3://{self.s3_bucket}/{self.s3_prefix.strip('/')}",
            conn_id=self.aws_conn_id,
            compression=self.compression,
        )
