"""The two servers that every contender uses, and what they cost."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.measure import cpu_seconds
from tests.support.elasticsearch import ElasticsearchServer
from tests.support.s3 import S3Server, moto_server

if TYPE_CHECKING:
    from collections.abc import Sequence

BUCKET = "bench"
HEAP = "1g"


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Elasticsearch and the S3 API, each in its own process on this machine.

    :param elasticsearch: the real one.
    :param s3: moto.
    :param s3_processes: what moto runs in.
    """

    elasticsearch: ElasticsearchServer
    s3: S3Server
    s3_processes: Sequence[psutil.Process]

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead a contender to the servers."""
        return {
            **self.s3.environment(),
            "BENCH_ELASTICSEARCH_URL": self.elasticsearch.url,
            "AIRFLOW_CONN_ELASTICSEARCH_DEFAULT": json.dumps(
                {"conn_type": "elasticsearch", "host": self.elasticsearch.url}
            ),
            "AIRFLOW_CONN_AWS_DEFAULT": self.s3.airflow_connection(),
        }

    def cpu(self) -> tuple[float, float]:
        """Return the CPU seconds that Elasticsearch and the S3 API have used so far."""
        return cpu_seconds(self.elasticsearch.processes()), cpu_seconds(self.s3_processes)


@contextmanager
def running_servers() -> Iterator[Servers]:
    """Run both servers for the time of a ``with`` block, with an empty bucket."""
    elasticsearch = ElasticsearchServer(heap=HEAP)
    with tempfile.TemporaryDirectory(prefix="batchkit-bench-") as folder:
        before = set(psutil.Process().children())
        try:
            with moto_server(Path(folder)) as s3:
                s3_processes = sorted(set(psutil.Process().children()) - before, key=lambda each: each.pid)
                elasticsearch.start()
                with s3.client() as client:
                    client.create_bucket(Bucket=BUCKET)
                yield Servers(elasticsearch=elasticsearch, s3=s3, s3_processes=s3_processes)
        finally:
            elasticsearch.stop()
