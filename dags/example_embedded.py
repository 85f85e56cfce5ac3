"""Orders out of a SQLite table into a local folder: the smallest whole example, it needs Airflow alone.

The table is ``orders(id INTEGER PRIMARY KEY, customer TEXT, amount TEXT, currency TEXT, created_at TEXT)`` in
the database of the connection ``example_orders``; the output goes below ``BATCHKIT_EXAMPLE_FOLDER``.
``batchkit demo`` makes both and shows this DAG at work.
"""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from airflow.sdk import DAG, Param

from airflow_batchkit import (
    BatchPipelineOperator,
    BatchPolicy,
    DeadLetters,
    ErrorBudget,
    ObjectStorageSink,
    RateLimit,
    RecordError,
    SqlSource,
)

FOLDER = os.environ.get("BATCHKIT_EXAMPLE_FOLDER", f"{tempfile.gettempdir()}/batchkit_example")


# [START transform]
def with_cents(order: dict[str, Any]) -> dict[str, Any] | None:
    """Add the amount in cents; leave out orders of nothing, give up those whose amount is no number."""
    try:
        cents = int(Decimal(order["amount"]) * 100)
    except InvalidOperation:
        raise RecordError("the amount is no number") from None
    return {**order, "cents": cents} if cents else None


# [END transform]

with DAG(
    "example_embedded",
    schedule=None,
    catchup=False,
    params={
        "restart": Param(default=False, type="boolean", description="Begin anew, whatever is there."),
        "local": Param(
            default=False, type="boolean", description="LOCAL mode: read and transform, write nothing."
        ),
    },
    tags=["example", "batchkit"],
    doc_md=__doc__,
) as dag:
    # [START embedded]
    BatchPipelineOperator(
        task_id="export_orders",
        source=SqlSource(conn_id="example_orders", table="orders", key=("id",)),
        transform=with_cents,
        sink=ObjectStorageSink(url=f"file://{FOLDER}/orders"),
        batch=BatchPolicy(max_records=5_000),
        throttle=RateLimit(records_per_second=25_000),
        error_budget=ErrorBudget(max_fraction=0.01, min_sample=10_000),
        dead_letters=DeadLetters(f"file://{FOLDER}/dead-letters"),
        restart="{{ params.restart }}",
        local="{{ params.local }}",
        retries=2,
        retry_delay=timedelta(seconds=2),
    )
    # [END embedded]
