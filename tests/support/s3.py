"""An S3 API for the tests: moto's server, in a process of its own on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.processes import (
    ServerError,
    end,
    ends_with_parent,
    family,
    free_port,
    last_lines,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """An S3 API that answers at an endpoint, and the credentials that it takes."""

    endpoint_url: str
    access_key: str = "test-access-key"
    secret_key: str = "test-secret-key"
    region: str = "us-east-1"

    @contextmanager
    def client(self) -> Iterator[S3Client]:
        """Give a boto3 client that retries nothing, as the product's own does, for a ``with`` block."""
        import boto3
        from botocore.config import Config

        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30),
        )
        with closing(client):
            yield client

    def environment(self) -> dict[str, str]:
        """Return the variables that lead boto3 in another process to this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def airflow_connection(self) -> str:
        """Return the value of ``AIRFLOW_CONN_AWS_DEFAULT`` that leads Airflow to this server."""
        return json.dumps(
            {
                "conn_type": "aws",
                "login": self.access_key,
                "password": self.secret_key,
                "extra": {"endpoint_url": self.endpoint_url, "region_name": self.region},
            }
        )

    def empty(self, bucket: str) -> None:
        """Delete whatever a bucket holds, and the bucket."""
        with self.client() as client:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for found in page.get("Contents", []):
                    client.delete_object(Bucket=bucket, Key=found["Key"])
            client.delete_bucket(Bucket=bucket)


@contextmanager
def moto_server(folder: Path) -> Iterator[S3Server]:
    """Run moto's server for the time of a ``with`` block; its log goes into ``folder``."""
    server = S3Server(endpoint_url=f"http://127.0.0.1:{free_port()}")
    log = folder / "moto.log"
    port = server.endpoint_url.rpartition(":")[2]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*ends_with_parent("TERM"), sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(2**20)},
        )
    try:
        wait_until(lambda: _answers(server, process), seconds=60, what=f"moto at {server.endpoint_url}")
        yield server
    except ServerError as error:
        raise ServerError(f"{error}; its log ends with:\n{last_lines(log)}") from None
    finally:
        end(family(process.pid), grace=5)
        process.wait(timeout=10)


def _answers(server: S3Server, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise ServerError(f"moto ended by itself with exit code {process.returncode}")
    try:
        with urllib.request.urlopen(f"{server.endpoint_url}/moto-api/", timeout=2):  # noqa: S310 - it is ours
            return True
    except (urllib.error.URLError, OSError):
        return False
