"""airflow_batchkit: batched, throttled, idempotent, resumable processing inside Airflow tasks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_batchkit.connectors.callable import CallableSink
    from airflow_batchkit.connectors.elasticsearch import ElasticsearchDeadLetters, ElasticsearchSource
    from airflow_batchkit.connectors.iterable import IterableSource
    from airflow_batchkit.connectors.letters import DeadLetterSource, LetterFilter
    from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink, S3Settings
    from airflow_batchkit.connectors.sql import SqlDeadLetters, SqlSource
    from airflow_batchkit.engine.exceptions import (
        BatchkitError,
        PermanentError,
        PushbackError,
        RecordError,
        TransientError,
        UsageError,
    )
    from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, ErrorBudget, RateLimit, Timeouts
    from airflow_batchkit.engine.types import Record
    from airflow_batchkit.notifications.slack import (
        SlackDeadlineNotifier,
        SlackFailureNotifier,
        slack_alerts,
    )
    from airflow_batchkit.operators.pipeline import BatchPipelineOperator
    from airflow_batchkit.operators.replay import ReplayDeadLettersOperator
    from airflow_batchkit.transfers.elasticsearch_to_s3 import ElasticsearchToS3Operator

__version__ = "0.1.0"

__all__ = [
    "BatchPipelineOperator",
    "BatchPolicy",
    "BatchRetry",
    "BatchkitError",
    "CallableSink",
    "DeadLetterSource",
    "DeadLetters",
    "ElasticsearchDeadLetters",
    "ElasticsearchSource",
    "ElasticsearchToS3Operator",
    "ErrorBudget",
    "IterableSource",
    "LetterFilter",
    "ObjectStorageSink",
    "PermanentError",
    "PushbackError",
    "RateLimit",
    "Record",
    "RecordError",
    "ReplayDeadLettersOperator",
    "S3Settings",
    "SlackDeadlineNotifier",
    "SlackFailureNotifier",
    "SqlDeadLetters",
    "SqlSource",
    "Timeouts",
    "TransientError",
    "UsageError",
    "__version__",
    "slack_alerts",
]

# Where each name lives: importing the package must import neither Airflow nor a client library.
_HOMES = {
    "BatchPipelineOperator": "operators.pipeline",
    "BatchPolicy": "engine.policies",
    "BatchRetry": "engine.policies",
    "BatchkitError": "engine.exceptions",
    "CallableSink": "connectors.callable",
    "DeadLetterSource": "connectors.letters",
    "DeadLetters": "connectors.object_storage",
    "ElasticsearchDeadLetters": "connectors.elasticsearch",
    "ElasticsearchSource": "connectors.elasticsearch",
    "ElasticsearchToS3Operator": "transfers.elasticsearch_to_s3",
    "ErrorBudget": "engine.policies",
    "IterableSource": "connectors.iterable",
    "LetterFilter": "connectors.letters",
    "ObjectStorageSink": "connectors.object_storage",
    "PermanentError": "engine.exceptions",
    "PushbackError": "engine.exceptions",
    "RateLimit": "engine.policies",
    "Record": "engine.types",
    "RecordError": "engine.exceptions",
    "ReplayDeadLettersOperator": "operators.replay",
    "S3Settings": "connectors.object_storage",
    "SlackDeadlineNotifier": "notifications.slack",
    "SlackFailureNotifier": "notifications.slack",
    "SqlDeadLetters": "connectors.sql",
    "SqlSource": "connectors.sql",
    "Timeouts": "engine.policies",
    "TransientError": "engine.exceptions",
    "UsageError": "engine.exceptions",
    "slack_alerts": "notifications.slack",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
