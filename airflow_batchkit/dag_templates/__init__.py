"""Ring 5: whole DAGs in ten lines."""

from __future__ import annotations

from airflow_batchkit.dag_templates.nightly_export import nightly_export
from airflow_batchkit.dag_templates.watchdog import watchdog

__all__ = ["nightly_export", "watchdog"]
