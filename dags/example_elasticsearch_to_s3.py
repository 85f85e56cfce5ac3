"""Every night, yesterday's orders from Elasticsearch to S3, with every policy shown.

``example_nightly_export.py`` makes such a DAG in ten lines, with ``dag_templates.nightly_export``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_batchkit import (
    BatchPolicy,
    BatchRetry,
    DeadLetters,
    ElasticsearchToS3Operator,
    ErrorBudget,
    RateLimit,
    Timeouts,
)
from airflow_batchkit.notifications.slack import slack_alerts

with DAG(
    "example_elasticsearch_to_s3",
    # A plain "@daily" has no data interval on Airflow 3: this timetable gives each run its day.
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # [START params]
    params={
        "start_at": Param(
            default=None,
            type=["null", "string"],
            title="Start at",
            description="Export only a part, from this date on (2026-03-01T12:00). "
            "Such a run never replaces a whole output.",
        ),
        "restart": Param(
            default=False, type="boolean", title="Restart", description="Begin anew, whatever is there."
        ),
        "local": Param(
            default=False,
            type="boolean",
            title="LOCAL mode",
            description="Read and transform, write nothing.",
        ),
    },
    # [END params]
    tags=["example", "batchkit"],
    doc_md=__doc__,
    # [START alerts]
    **slack_alerts(
        channel="#data-alerts",
        slack_conn_id="slack_api_default",
        deadline=timedelta(hours=4),
        task_id="export_orders",
        default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    ),
    # [END alerts]
) as dag:
    # [START elasticsearch_to_s3]
    ElasticsearchToS3Operator(
        task_id="export_orders",
        elasticsearch_conn_id="elasticsearch_default",
        index="orders",
        query={
            "range": {
                "created_at": {
                    "gte": "{{ data_interval_start | ts }}",
                    "lt": "{{ data_interval_end | ts }}",
                }
            }
        },
        date_field="created_at",
        aws_conn_id="aws_default",
        s3_bucket="lake",
        s3_prefix="orders/ds={{ data_interval_start | ds }}",
        compression="gzip",
        batch=BatchPolicy(max_bytes=16 * 1024 * 1024),
        throttle=RateLimit(records_per_second=50_000),
        error_budget=ErrorBudget(max_dead_letters=100),
        dead_letters=DeadLetters(
            "s3://lake/dead-letters/orders/ds={{ data_interval_start | ds }}", conn_id="aws_default"
        ),
        batch_retry=BatchRetry(max_tries=6, max_wait=timedelta(minutes=1)),
        timeouts=Timeouts(no_progress=timedelta(minutes=10), run=timedelta(hours=12)),
        when_cleared="resume",
        start_at="{{ params.start_at }}",
        restart="{{ params.restart }}",
        local="{{ params.local }}",
    )
    # [END elasticsearch_to_s3]
