"""What Airflow shows of this provider: a plain dict, made by the standard library alone."""

from __future__ import annotations

from typing import Any

SECTION = "batchkit"

_BATCHKIT = "Batchkit"
_ELASTICSEARCH = "Elasticsearch"
_S3 = "Amazon Simple Storage Service (S3)"

_OPTIONS: dict[str, dict[str, Any]] = {
    "min_reschedule_seconds": {
        "description": (
            "A task that gives its worker slot back (after a stop, in a long wait, after a transient "
            "failure) comes back after this many seconds at the earliest. Below about 10 s the scheduler "
            "takes the exit of the old leg for an external kill and uses up a retry."
        ),
        "version_added": "0.1.0",
        "type": "float",
        "example": "60",
        "default": "30",
    },
    "max_wait_in_slot_seconds": {
        "description": "A wait longer than this many seconds gives the worker slot back instead.",
        "version_added": "0.1.0",
        "type": "float",
        "example": "300",
        "default": "60",
    },
    "max_legs": {
        "description": "A run that has had this many legs fails, so that nothing comes back for ever.",
        "version_added": "0.1.0",
        "type": "integer",
        "example": "500",
        "default": "200",
    },
    "max_stuck_legs": {
        "description": (
            "After this many transient failures in a row at the same cursor a run uses up a retry, or fails "
            "when it has none left; failures between which the cursor moves use none."
        ),
        "version_added": "0.1.0",
        "type": "integer",
        "example": "5",
        "default": "3",
    },
    "checkpoint_max_age_days": {
        "description": "A checkpoint older than this many days is not resumed: the run has to be restarted.",
        "version_added": "0.1.0",
        "type": "float",
        "example": "3",
        "default": "7",
    },
    "environment_name": {
        "description": "How logs and alerts call this Airflow: production, staging, develop.",
        "version_added": "0.1.0",
        "type": "string",
        "example": "production",
        "default": "",
    },
    "s3_console_url": {
        "description": (
            "Where the buttons of a task lead for an object of an S3 store: a page of its web console, with "
            "{bucket} and {key}. Empty: the s3:// URL itself."
        ),
        "version_added": "0.1.0",
        "type": "string",
        "example": "https://minio.example:9001/browser/{bucket}/{key}",
        "default": "https://s3.console.aws.amazon.com/s3/buckets/{bucket}?prefix={key}",
    },
}


def default_of(option: str) -> str:
    """Return the default of an option of ``[batchkit]``, as text."""
    return str(_OPTIONS[option]["default"])


def get_provider_info() -> dict[str, Any]:
    """Return what Airflow reads through the entry point ``apache_airflow_provider``."""
    return {
        "package-name": "airflow-batchkit",
        "name": "Batchkit",
        "description": "Batched, throttled, idempotent, resumable jobs inside Airflow tasks.",
        "integrations": [
            {
                "integration-name": _BATCHKIT,
                "external-doc-url": "https://pypi.org/project/airflow-batchkit/",
                "tags": ["software"],
            },
        ],
        "operators": [
            {
                "integration-name": _BATCHKIT,
                "python-modules": [
                    "airflow_batchkit.operators.pipeline",
                    "airflow_batchkit.operators.replay",
                ],
            },
        ],
        "hooks": [
            {
                "integration-name": _ELASTICSEARCH,
                "python-modules": ["airflow_batchkit.hooks.elasticsearch"],
            },
        ],
        "transfers": [
            {
                "source-integration-name": _ELASTICSEARCH,
                "target-integration-name": _S3,
                "python-module": "airflow_batchkit.transfers.elasticsearch_to_s3",
            },
        ],
        "task-decorators": [
            {
                "name": "batch_pipeline",
                "class-name": "airflow_batchkit.decorators.batch_pipeline.batch_pipeline_task",
            },
        ],
        "notifications": [
            "airflow_batchkit.notifications.slack.SlackFailureNotifier",
            "airflow_batchkit.notifications.slack.SlackDeadlineNotifier",
        ],
        "extra-links": [
            "airflow_batchkit.operators.links.OutputLink",
            "airflow_batchkit.operators.links.ManifestLink",
            "airflow_batchkit.operators.links.DeadLettersLink",
        ],
        "config": {
            SECTION: {
                "description": "Settings that hold for all batchkit tasks of this Airflow.",
                "options": _OPTIONS,
            },
        },
    }
