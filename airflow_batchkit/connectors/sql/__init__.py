"""SQL databases: reads tables in the order of a unique key."""

from __future__ import annotations

from airflow_batchkit.connectors.sql.source import SqlSource

__all__ = ["SqlSource"]
