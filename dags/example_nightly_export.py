"""The nightly export in ten lines; ``example_elasticsearch_to_s3.py`` spells the same out."""

# [START nightly_export]
from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow_batchkit.dag_templates import nightly_export

dag = nightly_export(
    "example_nightly_export",
    index="orders",
    date_field="created_at",
    s3_bucket="lake",
    s3_prefix="nightly/orders",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    slack_channel="#data-alerts",
    deadline=timedelta(hours=4),
)
# [END nightly_export]
