"""Object storage for the tests: a folder or a bucket, the same to look at."""

from __future__ import annotations

import functools
import gzip
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zstandard

from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.connectors.object_storage.locations import parse_location
from airflow_batchkit.connectors.object_storage.store import ObjectStore, open_store
from airflow_batchkit.engine.checkpoint import Frontier, PartitionProgress
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.sink import BatchKey, Inherited, Leg, OpenSink, Publication
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.engine.types import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import pytest

FINISHED = Frontier(1)
BEGUN = Frontier(1, (PartitionProgress(0),))


@dataclass(frozen=True, kw_only=True)
class S3Connections:
    """Makes S3 clients for an endpoint.

    :param endpoint_url: where the API answers.
    :param access_key: as the API takes it.
    :param secret_key: as the API takes it.
    """

    endpoint_url: str
    access_key: str = "test-access-key"
    secret_key: str = "test-secret-key"

    def client(self, kind: str, conn_id: str, *, timeouts: Timeouts) -> Any:
        """Make a client without retries of its own."""
        if kind != "s3":
            raise UsageError(f"connection {conn_id!r} ({kind}) is not known")
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(
                retries={"total_max_attempts": 1},
                connect_timeout=timeouts.connect.total_seconds(),
                read_timeout=timeouts.read.total_seconds(),
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place for objects, with a way to open it.

    :param url: where.
    :param connections: makes clients; a folder needs none.
    """

    url: str
    connections: S3Connections

    @property
    def context(self) -> OpenContext:
        """Return what a sink is opened with."""
        return OpenContext(
            connections=self.connections, timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC)
        )

    def below(self, name: str) -> Place:
        """Return a place further down."""
        return replace(self, url=f"{self.url}/{name}")

    def store(self) -> ObjectStore:
        """Open the place."""
        return open_store(parse_location(self.url), "aws_default", self.context)

    def sink(self, **settings: Any) -> OpenSink:
        """Open a sink there."""
        return ObjectStorageSink(url=self.url, **settings).open(self.context)

    def names(self) -> list[str]:
        """List what lies there, also what a store does not list (but locks, which stay)."""
        if self.url.startswith("file://"):
            root = Path(self.url.removeprefix("file://"))
            paths = (path for path in root.rglob("*") if path.is_file() or not any(path.iterdir()))
            return sorted(str(path.relative_to(root)) for path in paths if path.name != ".lock")
        return list(_reader(self).keys(""))

    def content(self, key: str) -> bytes:
        """Read an object."""
        with _reader(self).read(key) as reading:
            return reading.file.read()

    def manifest(self) -> dict[str, Any]:
        """Read the manifest."""
        manifest: dict[str, Any] = json.loads(self.content("manifest.json"))
        return manifest

    def lines(self) -> list[str]:
        """Read all lines by the manifest, in its order."""
        lines: list[str] = []
        for part in self.manifest()["parts"]:
            content = self.content(part["key"])
            assert len(content) == part["bytes"]
            text = decompress(part["key"], content)
            assert text.count(b"\n") == part["records"]
            lines += text.decode().splitlines()
        return lines

    def ids(self) -> list[str]:
        """Return the ids of all records by the manifest, in its order."""
        return [json.loads(line)["_id"] for line in self.lines()]


def decompress(key: str, content: bytes) -> bytes:
    """Return what an object stands for, by the end of its name."""
    if key.endswith(".zst"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(content)
    return gzip.decompress(content) if key.endswith(".gz") else content


@functools.lru_cache(maxsize=4)
def _reader(place: Place) -> ObjectStore:
    return place.store()


def leg(token: str, *, run: str = "run-1", generation: str = "0a0a0a0a", **changes: Any) -> Leg:
    """Make a leg of a run with one partition."""
    settings: dict[str, Any] = {"job": "job", "mode": "real", "partitions": ("only",), **changes}
    return Leg(run=run, token=token * 16, generation=generation, **settings)


def inherited(token: str, frontier: Frontier) -> Inherited:
    """Make what a leg takes over."""
    return Inherited(token=token * 16, frontier=frontier)


def after_batch(number: int, *, partition: int = 0, next_partition: int = 1) -> Frontier:
    """Make the frontier behind so many batches of a partition."""
    return Frontier(next_partition, (PartitionProgress(partition, {"position": number}, number),))


def publication(
    written: int,
    frontier: Frontier = FINISHED,
    *,
    dead_lettered: int = 0,
    stop_asked: Callable[[], str | None] = lambda: None,
) -> Publication:
    """Make what a sink is given to publish."""
    return Publication(
        frontier=frontier,
        counts={"read": written, "written": written, "dead_lettered": dead_lettered},
        fingerprints={"source": "test"},
        notes={"legs": 1},
        stop_asked=stop_asked,
    )


def records(ids: Iterable[object]) -> list[Record]:
    """Make small records with these ids."""
    return [Record(id=str(name), body=b'{"n":"%s"}' % str(name).encode()) for name in ids]


def write(sink: OpenSink, number: int, ids: Sequence[object], *, partition: int = 0) -> None:
    """Write one batch of small records."""
    writer = sink.begin(BatchKey(partition=partition, number=number))
    writer.add(records(ids))
    assert writer.write().written == len(ids)


def make_place(kind: str, request: pytest.FixtureRequest) -> Place:
    """Make an empty place.

    :param kind: ``file`` or ``s3``.
    """
    if kind == "file":
        folder = request.getfixturevalue("tmp_path")
        return Place(url=f"file://{folder}/out", connections=S3Connections(endpoint_url=""))
    server = request.getfixturevalue("s3_server")
    connections = S3Connections(
        endpoint_url=server.endpoint_url, access_key=server.access_key, secret_key=server.secret_key
    )
    return Place(url=f"s3://{request.getfixturevalue('bucket')}/out", connections=connections)
