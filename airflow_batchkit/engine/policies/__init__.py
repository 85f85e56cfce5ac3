"""The settings of a run, as frozen values; their running state lives in the run."""

from __future__ import annotations

from airflow_batchkit.engine.policies.batch import BatchPolicy
from airflow_batchkit.engine.policies.budget import ErrorBudget
from airflow_batchkit.engine.policies.retry import BatchRetry
from airflow_batchkit.engine.policies.throttle import RateLimit
from airflow_batchkit.engine.policies.timeouts import Timeouts

__all__ = ["BatchPolicy", "BatchRetry", "ErrorBudget", "RateLimit", "Timeouts"]
