"""DAGs for the tests of ``batchkit watch`` on a real Airflow: often, failing, at rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator  # noqa: TID253 - parsed by Airflow only
from airflow.sdk import DAG, task  # noqa: TID253 - as above

START = datetime(2026, 1, 1, tzinfo=UTC)

with DAG("watching_often", schedule=timedelta(seconds=8), start_date=START, catchup=False, max_active_runs=4):
    EmptyOperator(task_id="nothing")

with DAG("watching_paused", schedule="@daily", start_date=START, catchup=False):
    EmptyOperator(task_id="nothing")

with DAG("watching_failed", schedule=None):

    @task(retries=0)
    def work(dag_run: Any = None) -> None:
        """Fail, or not."""
        if dag_run.conf["how"] == "raise":
            raise ValueError("no such index")

    work()
