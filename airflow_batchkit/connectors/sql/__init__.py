"""SQL databases: reads tables in the order of a unique key; keeps dead letters."""

from __future__ import annotations

from airflow_batchkit.connectors.sql.dead_letters import SqlDeadLetters
from airflow_batchkit.connectors.sql.source import SqlSource

__all__ = ["SqlDeadLetters", "SqlSource"]
