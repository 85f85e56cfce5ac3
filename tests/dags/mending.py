"""An export whose transform has a bug; the test deploys the next versions of this file, as a person would."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG  # noqa: TID253 - this file is parsed by Airflow only

from airflow_batchkit import BatchPipelineOperator, BatchPolicy, ObjectStorageSink, SqlSource

WHEN_CLEARED = "resume"


def doubled(order: dict[str, Any]) -> dict[str, Any]:
    """Add twice the amount."""
    return {**order, "twice": int(order["amount"]) * 2}


with DAG("mending", schedule=None):
    BatchPipelineOperator(
        task_id="export",
        source=SqlSource(conn_id="exporting", table="orders", where="id <= {{ dag_run.conf.records }}"),
        transform=doubled,
        sink=ObjectStorageSink(url="file://{{ dag_run.conf.folder }}/{{ ti.task_id }}/out"),
        batch=BatchPolicy(max_records=50),
        when_cleared=WHEN_CLEARED,
        retries=2,
        retry_delay=timedelta(seconds=1),
    )
