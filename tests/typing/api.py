"""The public API as a user writes it; mypy checks it, nothing runs it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow_batchkit import (
    BatchPipelineOperator,
    BatchPolicy,
    BatchRetry,
    CallableSink,
    DeadLetters,
    DeadLetterSource,
    ElasticsearchDeadLetters,
    ElasticsearchSource,
    ElasticsearchToS3Operator,
    ErrorBudget,
    IterableSource,
    LetterFilter,
    ObjectStorageSink,
    RateLimit,
    Record,
    RecordError,
    ReplayDeadLettersOperator,
    S3Settings,
    SqlDeadLetters,
    SqlSource,
    Timeouts,
)


def cents(order: dict[str, Any]) -> dict[str, Any] | None:
    """Transform one document into one, or none."""
    if "total" not in order:
        raise RecordError("an order without a total")
    return {**order, "cents": order["total"] * 100} if order["total"] else None


def lines(order: dict[str, Any], record: Record) -> list[dict[str, Any]]:
    """Transform one document into several, knowing the record."""
    return [{"order": record.id, **line} for line in order["lines"]]


def call_billing(customer: dict[str, Any], *, idempotency_key: str) -> None:
    """Stand in for a call to somebody's API."""


ElasticsearchToS3Operator(
    task_id="export_orders",
    elasticsearch_conn_id="elasticsearch_default",
    index="orders",
    query={"range": {"day": {"gte": "{{ ds }}"}}},
    aws_conn_id="aws_default",
    s3_bucket="lake",
    s3_prefix="orders/ds={{ ds }}",
    compression="gzip",
    s3_settings=S3Settings(
        server_side_encryption="aws:kms",
        sse_kms_key_id="alias/lake",
        storage_class="STANDARD_IA",
        tags={"ds": "{{ ds }}"},
    ),
    transform=cents,
    batch=BatchPolicy(max_records=10_000, max_bytes=8 * 1024 * 1024),
    throttle=RateLimit(records_per_second=5_000),
    error_budget=ErrorBudget(
        max_dead_letters=100, max_fraction=0.01, min_sample=1_000, max_per_class={"size": 0}
    ),
    dead_letters=DeadLetters("s3://lake/dead-letters"),
    batch_retry=BatchRetry(max_tries=3, first_wait=timedelta(seconds=1)),
    timeouts=Timeouts(no_progress=timedelta(minutes=5)),
    checkpoint_store="auto",
    when_cleared="resume",
    local=False,
    plan_only=False,
)

BatchPipelineOperator(
    task_id="order_lines",
    source=SqlSource(conn_id="shop", table="orders", key=("day", "id")),
    sink=ObjectStorageSink(url="file:///data/lines", compression=None),
    transform=lines,
    local="{{ params.local }}",
)

BatchPipelineOperator(
    task_id="bill",
    source=IterableSource(records=lambda: [{"id": 1}], key="id"),
    sink=CallableSink(function=call_billing),
)

BatchPipelineOperator(
    task_id="two_indices",
    source=ElasticsearchSource(index=["orders", "returns"], query=None),
    sink=ObjectStorageSink(url="s3://lake/both"),
)

ReplayDeadLettersOperator(
    task_id="replay_orders",
    dead_letters=DeadLetters("s3://lake/dead-letters"),
    sink=ObjectStorageSink(url="s3://lake/orders/ds={{ ds }}"),
    transform=cents,
    only=LetterFilter(error_types=["KeyError"], since="{{ ds }}"),
    throttle=RateLimit(records_per_second=500),
)

BatchPipelineOperator(
    task_id="letters_to_files",
    source=DeadLetterSource(DeadLetters("s3://lake/dead-letters"), job="shop.export", run="manual__1"),
    sink=ObjectStorageSink(url="file:///data/letters"),
)

ReplayDeadLettersOperator(
    task_id="replay_from_index",
    dead_letters=ElasticsearchDeadLetters(index="batchkit-dead-letters"),
    sink=ObjectStorageSink(url="s3://lake/orders"),
)
ReplayDeadLettersOperator(
    task_id="replay_from_table",
    dead_letters=SqlDeadLetters(conn_id="shop", table="dead_letters"),
    sink=CallableSink(function=call_billing),
)
