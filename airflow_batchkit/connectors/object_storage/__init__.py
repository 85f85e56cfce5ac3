"""Object storage, ``s3://`` buckets and ``file://`` folders: a sink, and a place for dead letters."""

from __future__ import annotations

from airflow_batchkit.connectors.object_storage.dead_letters import DeadLetters
from airflow_batchkit.connectors.object_storage.s3_settings import S3Settings
from airflow_batchkit.connectors.object_storage.sink import ObjectStorageSink

__all__ = ["DeadLetters", "ObjectStorageSink", "S3Settings"]
