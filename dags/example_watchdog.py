"""Tells in Slack when the nightly exports do not run, are late, stuck, failed, paused or gone."""

# [START watchdog]
from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow_batchkit.dag_templates import watchdog
from airflow_batchkit.watching import Limits, Watched

dag = watchdog(
    "example_watchdog",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    watched=[
        Watched(
            dags=["example_*"],
            limits=Limits(max_age=timedelta(hours=26)),
            maintenance=["Sun 02:00-04:00 Europe/Berlin"],
        ),
    ],
    slack_channel="#data-alerts",
    ping_url="variable:watchdog_ping",
)
# [END watchdog]
