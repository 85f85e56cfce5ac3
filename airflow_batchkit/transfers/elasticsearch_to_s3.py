"""Exports an Elasticsearch index, or several, to a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch import ElasticsearchSource
from airflow_batchkit.connectors.object_storage import ObjectStorageSink, S3Settings
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

    :param index: an index, alias, data stream or pattern, or a list of them (templated).
    :param s3_bucket: the bucket (templated).
    :param s3_prefix: everything below belongs to this job (templated): ``"orders/ds={{ ds }}"``.
    :param query: the body of ``"query"`` (templated). Default: all documents.
    :param elasticsearch_conn_id: connection of type ``elasticsearch``. Default ``elasticsearch_default``.
    :param aws_conn_id: connection of type ``aws``. Default ``aws_default``.
    :param compression: ``"gzip"``, ``"zstd"`` (needs the extra ``zstd``) or None. Default ``"gzip"``.
    :param verify_output: read everything back once it is published, and fail the run where it is not what was
        written: size, sha256, every line, ids that come twice. Default False. (TLS: see the connection.)
    :param s3_settings: encryption, storage class, ACL, tags, … (templated). Default: as the bucket has it.
    :param sort: the order in which each shard is read, ending in a field that no two documents share.
        Default: the order of the sequence numbers, which is the fastest.
    :param source_includes: of each document only these fields (templated). Default: all.
    :param source_excludes: of each document not these fields (templated). Default: none.
    :param fields: instead of each document these values of it (templated).
    :param runtime_mappings: fields that exist only in this search (templated).
    :param ignore_unavailable: leave out what is missing or closed. Default False: refuse it.
    :param allow_no_indices: read nothing where the names stand for nothing. Default False: refuse that.
    :param date_field: lets ``start_at`` be a date: documents from then on in this field (templated).
    """

    template_fields: Collection[str] = (
        "index",
        "query",
        "s3_bucket",
        "s3_prefix",
        "elasticsearch_conn_id",
        "aws_conn_id",
        "s3_settings",
        "source_includes",
        "source_excludes",
        "fields",
        "runtime_mappings",
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
        verify_output: bool = False,
        s3_settings: S3Settings | None = None,
        sort: Sequence[str | Mapping[str, Any]] = (),
        source_includes: Sequence[str] = (),
        source_excludes: Sequence[str] = (),
        fields: Sequence[str | Mapping[str, Any]] = (),
        runtime_mappings: Mapping[str, Any] | None = None,
        ignore_unavailable: bool = False,
        allow_no_indices: bool = False,
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
        self.verify_output = verify_output
        self.s3_settings = s3_settings
        self.sort = sort
        self.source_includes = source_includes
        self.source_excludes = source_excludes
        self.fields = fields
        self.runtime_mappings = runtime_mappings
        self.ignore_unavailable = ignore_unavailable
        self.allow_no_indices = allow_no_indices
        self.date_field = date_field

    @override
    def source_value(self) -> Source:
        return ElasticsearchSource(
            conn_id=self.elasticsearch_conn_id,
            index=self.index,
            query=self.query,
            sort=self.sort,
            source_includes=self.source_includes,
            source_excludes=self.source_excludes,
            fields=self.fields,
            runtime_mappings=self.runtime_mappings,
            ignore_unavailable=self.ignore_unavailable,
            allow_no_indices=self.allow_no_indices,
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
            verify_output=self.verify_output,
            s3_settings=self.s3_settings,
        )
