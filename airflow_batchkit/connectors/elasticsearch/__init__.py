"""Elasticsearch: reads by windows of sequence numbers inside a point in time."""

from __future__ import annotations

from airflow_batchkit.connectors.elasticsearch.source import ElasticsearchSource

__all__ = ["ElasticsearchSource"]
