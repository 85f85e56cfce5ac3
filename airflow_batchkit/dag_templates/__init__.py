"""Ring 5: whole DAGs in ten lines."""

from __future__ import annotations

from airflow_batchkit.dag_templates.nightly_export import nightly_export

__all__ = ["nightly_export"]
