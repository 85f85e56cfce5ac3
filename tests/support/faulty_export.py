"""Exports of a small index into a bucket through two proxies that break requests, and what comes of them."""

from __future__ import annotations

import itertools
import json
import logging
import random
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from airflow_batchkit.connectors.elasticsearch import ElasticsearchSource
from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.engine.exceptions import BatchkitError, StoppedError, TransientError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, Timeouts
from airflow_batchkit.stores.target import TARGET_KEY, target_store
from airflow_batchkit.testing.doubles import MemoryStore
from tests.support.connections import ServerConnections
from tests.support.elasticsearch_reading import make_index
from tests.support.http_faults import Asked, Fault, HttpProxy, http_proxy
from tests.support.object_storage import Place, S3Connections
from tests.support.published import Published

if TYPE_CHECKING:
    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.s3 import S3Server

Side: TypeAlias = Literal["elasticsearch", "s3"]
Strike: TypeAlias = Callable[[Asked], Fault]

_LOG = logging.getLogger("airflow_batchkit")
MOST_LEGS = 4
SECRET = "a-secret-that-no-message-may-show"
SHORT = Timeouts(
    connect=timedelta(seconds=2),
    read=timedelta(seconds=1),
    request=timedelta(seconds=3),
    batch=timedelta(seconds=6),
)
_VERSION = re.compile(rb'(?<=")(?:,"_version":1)(?=,)')  # told where an export spans several snapshots
_STAYS = {"manifest.json", "_SUCCESS", "_batchkit/owner.json"}


def documents(count: int) -> dict[str, bytes]:
    """Make up documents, by id, with literals that no decoding would keep."""
    return {
        f"id-{number}": b'{"n":%d,"big":12345678901234567890,"half":1.50,"text":"%s"}'
        % (number, b"\\u00e9" * (number % 7))
        for number in range(count)
    }


def put_documents(server: ElasticsearchEndpoint, index: str, texts: Mapping[str, bytes]) -> None:
    """Index documents byte by byte, and make them visible."""
    if not texts:
        return
    lines = [b'{"index":{"_id":"%b"}}\n%b\n' % (name.encode(), body) for name, body in texts.items()]
    assert not server.request("POST", f"/{index}/_bulk?refresh=true", b"".join(lines))["errors"]


def strike(number: int, *faults: Fault) -> Strike:
    """Break the requests from this number on, counted from 1 over all of them, one fault each."""
    return lambda asked: faults[asked.index - number] if 0 <= asked.index - number < len(faults) else None


def meanwhile(resource: str, number: int, action: Callable[[], object]) -> Strike:
    """Break nothing, but do something before one request for a resource is passed on.

    :param resource: end of the path without its query.
    :param number: 1 for the first request for it.
    """
    seen = itertools.count(1)

    def strike(asked: Asked) -> Fault:
        if asked.resource.endswith(resource) and next(seen) == number:
            action()
        return None

    return strike


def strike_some(faults: Sequence[Fault], *, seed: str, probability: float, most: int) -> Strike:
    """Break each request with some probability, the same ones for the same seed.

    :param most: how many of them.
    """
    chance = random.Random(seed)
    broken = itertools.count(1)
    return lambda _asked: (
        chance.choice(faults) if chance.random() < probability and next(broken) <= most else None
    )


def pass_all(_asked: Asked) -> Fault:
    """Break nothing."""
    return None


@dataclass
class Export:
    """One run of one job, leg after leg, into a folder of its own.

    :param server: the real Elasticsearch.
    :param index: what to export.
    :param source: its documents.
    :param s3: the real S3 API.
    :param bucket: where to.
    :param settings: of the job, instead of its own.
    :param source_settings: of the source.
    :param sink_settings: of the sink.
    :param beside: the checkpoint lies beside the output.
    """

    server: ElasticsearchEndpoint
    index: str
    source: Mapping[str, bytes]
    s3: S3Server
    bucket: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    source_settings: Mapping[str, Any] = field(default_factory=dict)
    sink_settings: Mapping[str, Any] = field(default_factory=dict)
    beside: bool = False

    def __post_init__(self) -> None:
        """Begin."""
        self.folder = secrets.token_hex(4)
        self.legs = 0
        self._store = MemoryStore()

    @property
    def place(self) -> Place:
        """Where the output goes, past the proxy."""
        connections = S3Connections(
            endpoint_url=self.s3.endpoint_url, access_key=self.s3.access_key, secret_key=self.s3.secret_key
        )
        return Place(url=f"s3://{self.bucket}/{self.folder}", connections=connections)

    @property
    def checkpoint(self) -> str:
        """Where the checkpoint lies, where it lies beside the output."""
        return f"_batchkit/checkpoint-{TARGET_KEY}.json"

    def leg(self, elasticsearch_url: str, s3_url: str, *, run: str = "run-1", restart: bool = False) -> None:
        """Run one leg.

        :raises BatchkitError: how it ended, where it did not end well.
        """
        self.legs += 1
        job = Job(
            name="faulty",
            source=ElasticsearchSource(index=self.index, **self.source_settings),
            sink=ObjectStorageSink(url=self.place.url, **self.sink_settings),
            **{
                "batch": BatchPolicy(max_records=10),
                "batch_retry": BatchRetry(
                    max_tries=4, first_wait=timedelta(seconds=0.05), max_wait=timedelta(seconds=0.2)
                ),
                "timeouts": SHORT,
                **self.settings,
            },
        )
        connections = ServerConnections(
            elasticsearch_url=elasticsearch_url,
            elasticsearch={"username": "batchkit", "password": SECRET},
            s3={
                "endpoint_url": s3_url,
                "access_key": self.s3.access_key,
                "secret_key": self.s3.secret_key,
                "region": self.s3.region,
            },
        )
        store = target_store(job, connections, _LOG) if self.beside else self._store
        Pipeline(
            job,
            identity=RunIdentity(run=run, restart=restart, clear_marker="by a person" if restart else ""),
            store=store,
            key=TARGET_KEY,
            connections=connections,
        ).run()

    def run(self, elasticsearch_url: str, s3_url: str, *, most_legs: int = MOST_LEGS) -> BatchkitError | None:
        """Run leg after leg, as a scheduler would; return what ended the run where it failed.

        What may work later is tried again, without the pause.
        """
        error: BatchkitError | None = None
        for _ in range(most_legs):
            try:
                self.leg(elasticsearch_url, s3_url)
            except (StoppedError, TransientError) as later:
                error = later
            except BatchkitError as failed:
                return failed
            else:
                return None
        return error

    def run_struck(self, elasticsearch: Strike = pass_all, s3: Strike = pass_all) -> Struck:
        """Run through proxies, leg after leg."""
        with self.proxies(elasticsearch, s3) as (first, second):
            error = self.run(first.url, second.url)
        return Struck(
            error=error,
            struck=[*first.struck, *second.struck],
            requests={"elasticsearch": first.requests, "s3": second.requests},
        )

    @contextmanager
    def proxies(
        self, elasticsearch: Strike = pass_all, s3: Strike = pass_all
    ) -> Iterator[tuple[HttpProxy, HttpProxy]]:
        """Put proxies in front of both servers for a ``with`` block."""
        with (
            http_proxy(self.server.url, elasticsearch) as first,
            http_proxy(self.s3.endpoint_url, s3) as second,
        ):
            yield first, second

    def finish(self) -> None:
        """Run without faults to the end, and insist that the output is exact."""
        error = self.run(self.server.url, self.s3.endpoint_url)
        assert error is None, error
        self.insist_exact()

    def insist_exact(self) -> None:
        """Compare source and output record by record, the counts, and what else lies there."""
        place = self.place
        manifest = place.manifest()
        lines = [_VERSION.sub(b"", line.encode(), count=1) for line in place.lines()]
        wanted = [b'{"_id":"%b",%b' % (name.encode(), body[1:]) for name, body in self.source.items()]
        assert sorted(lines) == sorted(wanted)
        counts = manifest["counts"]
        assert (counts["read"], counts["written"]) == (len(self.source), len(self.source))
        assert manifest["total"]["records"] == len(self.source)
        assert all(part["records"] > 0 for part in manifest["parts"])
        stays = {*_STAYS, *([self.checkpoint] if self.beside else [])}
        assert set(place.names()) == stays | {part["key"] for part in manifest["parts"]}
        assert Published(place).problems() == {}


@dataclass(frozen=True)
class Struck:
    """What came of a run through proxies.

    :param error: what ended it; None where it completed.
    :param struck: the requests that were broken, and how.
    :param requests: how many there were.
    """

    error: BatchkitError | None
    struck: list[tuple[Asked, Fault]]
    requests: Mapping[Side, int]

    def insist_readable(self, *names: str) -> None:
        """Insist that the error is one line for a person: what happened to what, and no secret.

        :param names: what it has to name.
        """
        text = str(self.error)
        assert self.error is not None
        assert "\n" not in text
        for name in names:
            assert name in text, text
        for secret in (SECRET, "test-secret-key", "Authorization", "Signature="):
            assert secret not in text


def prepare_index(server: ElasticsearchEndpoint, texts: Mapping[str, bytes], *, shards: int = 2) -> str:
    """Make an index of documents, and return its name."""
    name = f"faulty-{secrets.token_hex(4)}"
    make_index(server, name, shards=shards)
    put_documents(server, name, texts)
    return name


def describe(struck: Struck) -> str:
    """Say which requests were broken, for the message of an assertion."""
    return json.dumps(
        [f"{asked.index}: {fault} {asked.method} {asked.resource}" for asked, fault in struck.struck]
    )
