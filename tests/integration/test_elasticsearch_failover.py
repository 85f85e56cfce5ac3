"""A node dies while a replicated index is exported and changed: the promoted copies go on."""

from __future__ import annotations

import functools
import gzip
import json
import logging
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch import ElasticsearchSource
from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.engine.exceptions import StoppedError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.listener import Listener
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, RateLimit
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.testing.doubles import MemoryStore
from tests.support.changing_documents import ChangingDocuments
from tests.support.connections import ServerConnections
from tests.support.elasticsearch_cluster import ElasticsearchCluster
from tests.support.elasticsearch_distribution import MissingError
from tests.support.processes import unavailable

if TYPE_CHECKING:
    from airflow_batchkit.engine.checkpoint import Checkpoint
    from airflow_batchkit.engine.policies import Timeouts

pytestmark = [pytest.mark.elasticsearch, pytest.mark.timeout(300)]

COUNT = 4_000


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[ElasticsearchCluster]:
    """Give two nodes that form a cluster."""
    cluster = ElasticsearchCluster()
    try:
        cluster.start()
    except MissingError as missing:
        unavailable(str(missing))
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(running_cluster: ElasticsearchCluster) -> ElasticsearchCluster:
    """Give the cluster with both nodes alive."""
    running_cluster.revive()
    return running_cluster


@dataclass(frozen=True, kw_only=True)
class NearMortal(ServerConnections):
    """Has points in time opened on the copies of the mortal node, as long as it has any.

    :param node: the cluster's id of that node.
    """

    node: str

    @override
    def client(self, kind: str, conn_id: str, *, timeouts: Timeouts) -> Any:
        client = super().client(kind, conn_id, timeouts=timeouts)
        send = client.transport.perform_request

        def send_near(method: str, target: str, **settings: Any) -> Any:
            nearer = re.sub(r"(preference=_shards:\d+)", rf"\1%7C_prefer_nodes:{self.node}", target)
            return send(method, nearer, **settings)

        client.transport.perform_request = send_near
        return client


class Assassin(Listener):
    """Kills the mortal node as soon as some progress is saved.

    :param cluster: whose node.
    :param changes: told what has to be there from then on.
    :param stop: asked to end the leg there, where given.
    """

    def __init__(self, cluster: ElasticsearchCluster, changes: ChangingDocuments, stop: Stop | None) -> None:
        self._cluster = cluster
        self._changes = changes
        self._stop = stop
        self.saved = 0

    @override
    def on_saved(self, checkpoint: Checkpoint) -> None:
        if checkpoint.counts.read and not self.saved:
            self.saved = checkpoint.counts.read
            self._changes.note_confirmed()
            self._cluster.mortal.kill()
            if self._stop is not None:
                self._stop.ask("the node is gone")


@dataclass(frozen=True, kw_only=True)
class Case:
    """What differs between the runs.

    :param shards: of the index; each has one replica.
    :param both_hosts: the mortal node is among the hosts that the connection names.
    :param settings: of the index.
    :param leg_ends: the leg ends with the node, and the next one goes on.
    """

    shards: int = 1
    both_hosts: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    leg_ends: bool = False


@pytest.mark.fault("snapshot-lost", at="elasticsearch")
@pytest.mark.fault("changing-source", at="elasticsearch")
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case(), id="one shard, asked through the other node"),
        pytest.param(Case(shards=2, both_hosts=True), id="two shards, both nodes are hosts"),
        pytest.param(
            Case(settings={"refresh_interval": "-1"}, leg_ends=True),
            id="nothing is refreshed by itself, and the next leg goes on",
        ),
    ],
)
def test_a_promoted_copy_goes_on(
    cluster: ElasticsearchCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture, case: Case
) -> None:
    """Untouched documents are there once, changed ones in their confirmed state; each event is one line."""
    index = f"failover-{secrets.token_hex(4)}"
    cluster.make_index(index, shards=case.shards, **case.settings)
    changes = ChangingDocuments(cluster, index, count=COUNT)
    hosts = (cluster.steady.url, cluster.mortal.url) if case.both_hosts else (cluster.steady.url,)
    connections = NearMortal(elasticsearch={"hosts": hosts}, node=cluster.mortal_id())
    job = Job(
        name="failover",
        source=ElasticsearchSource(index=index),
        sink=ObjectStorageSink(url=f"file://{tmp_path}/out"),
        batch=BatchPolicy(max_records=100),
        throttle=RateLimit(records_per_second=1_000),
    )
    stop = Stop()
    assassin = Assassin(cluster, changes, stop if case.leg_ends else None)

    with caplog.at_level(logging.WARNING, logger="airflow_batchkit"), changes.changing(writers=4):
        leg = functools.partial(
            Pipeline,
            job,
            identity=RunIdentity(run="failover"),
            store=MemoryStore(),
            key="failover",
            connections=connections,
            listeners=[assassin],
        )
        if case.leg_ends:
            with pytest.raises(StoppedError, match="the node is gone"):
                leg(stop=stop).run()
        report = leg().run()

    assert 0 < assassin.saved < COUNT / 2
    assert cluster.primaries(index) == {"steady"}
    changes.check(exported(tmp_path / "out"))
    assert report.source["snapshots"] == 2
    told = [record.getMessage() for record in caplog.records]
    assert all(index in line and "\n" not in line for line in told)
    spanning = sum("spans 2 snapshots" in line for line in told)
    # A shard whose point in time was on the other node keeps it; a leg that was asked to stop may have begun
    # to go on already.
    assert 1 <= spanning <= case.shards + case.leg_ends
    assert len(told) <= 4 * case.shards


def exported(folder: Path) -> Iterator[bytes]:
    """Yield the lines of the parts that the manifest lists."""
    for part in json.loads((folder / "manifest.json").read_text())["parts"]:
        yield from gzip.decompress((folder / part["key"]).read_bytes()).splitlines()
