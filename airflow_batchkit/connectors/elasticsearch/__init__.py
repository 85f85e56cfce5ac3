"""Elasticsearch: reads by windows of sequence numbers inside a point in time; keeps dead letters."""

from __future__ import annotations

from airflow_batchkit.connectors.elasticsearch.dead_letters import ElasticsearchDeadLetters
from airflow_batchkit.connectors.elasticsearch.source import ElasticsearchSource

__all__ = ["ElasticsearchDeadLetters", "ElasticsearchSource"]
