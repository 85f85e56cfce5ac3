"""Connections to the servers of the tests."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.engine.connections import Connections

if TYPE_CHECKING:
    from airflow_batchkit.engine.policies import Timeouts


@functools.cache
def _session() -> Any:
    import boto3

    return boto3.Session()  # shared: reading its models takes longer than most tests


@dataclass(frozen=True, kw_only=True)
class ServerConnections(Connections):
    """Makes clients for the servers that a test has; the connection's name does not matter.

    :param elasticsearch_url: of the Elasticsearch.
    :param elasticsearch: more settings of its endpoint, or other hosts.
    :param s3: ``endpoint_url``, ``access_key``, ``secret_key`` and ``region`` of the S3 API.
    :param sqlite_path: of the SQLite database.
    :param postgres: instead of it, where a PostgreSQL is, as its endpoint takes it.
    """

    elasticsearch_url: str = ""
    elasticsearch: Mapping[str, Any] = field(default_factory=dict)
    s3: dict[str, str] = field(default_factory=dict)
    sqlite_path: str = ""
    postgres: Mapping[str, Any] = field(default_factory=dict)

    @override
    def client(self, kind: str, conn_id: str, *, timeouts: Timeouts) -> Any:
        """Make a new client."""
        if kind == "elasticsearch":
            from airflow_batchkit.connectors.elasticsearch.client import ElasticsearchEndpoint, connect

            settings = {"hosts": (self.elasticsearch_url,), **self.elasticsearch}
            return connect(ElasticsearchEndpoint(**settings), timeouts)
        if kind == "s3":
            return self._s3(timeouts)
        if self.postgres:
            from airflow_batchkit.connectors.sql.postgres import endpoint

            return endpoint.connect(endpoint.PostgresEndpoint(**self.postgres), timeouts)
        return sqlite3.connect(self.sqlite_path, check_same_thread=False)

    def _s3(self, timeouts: Timeouts) -> Any:
        from botocore.config import Config

        return _session().client(
            "s3",
            endpoint_url=self.s3["endpoint_url"],
            aws_access_key_id=self.s3["access_key"],
            aws_secret_access_key=self.s3["secret_key"],
            region_name=self.s3["region"],
            config=Config(
                connect_timeout=timeouts.connect.total_seconds(),
                read_timeout=timeouts.read.total_seconds(),
                retries={"total_max_attempts": 1},
            ),
        )
