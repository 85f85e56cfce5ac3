"""DAGs that fail, are killed or are late, for the tests of alerts on a real Airflow."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task  # noqa: TID253 - this file is parsed by Airflow only

from airflow_batchkit.notifications.slack import slack_alerts

PROGRESS = {"line": "batch 2/5 · 20/50 records (40%)", "cursor": "id 20"}

with DAG("alerting_failed", schedule=None, **slack_alerts(channel="#data", slack_conn_id="alerting_slack")):

    @task
    def work(dag_run: Any = None, ti: Any = None) -> None:
        """Fail, or wait to be killed."""
        ti.xcom_push(key="batchkit_progress", value=PROGRESS)
        if dag_run.conf["how"] == "raise":
            raise ValueError("no such index")
        time.sleep(120)

    work()

with DAG(
    "alerting_late",
    schedule=None,
    **slack_alerts(
        channel="#data", slack_conn_id="alerting_slack", deadline=timedelta(seconds=8), task_id="wait"
    ),
):

    @task
    def wait(ti: Any = None) -> None:
        """Be late."""
        ti.xcom_push(key="batchkit_progress", value=PROGRESS)
        time.sleep(25)

    wait()
