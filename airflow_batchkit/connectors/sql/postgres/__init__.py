"""PostgreSQL, through psycopg 3."""

from __future__ import annotations

from airflow_batchkit.connectors.sql.postgres.dialect import PostgresDialect

__all__ = ["PostgresDialect"]
