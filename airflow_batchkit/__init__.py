"""airflow_batchkit: batched, throttled, idempotent, resumable processing inside Airflow tasks."""

from __future__ import annotations

__version__ = "0.1.0"
