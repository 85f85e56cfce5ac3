"""Two real nodes that form a cluster, one of which may be killed at any time."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from tests.support.elasticsearch import ElasticsearchEndpoint, ElasticsearchServer
from tests.support.elasticsearch_distribution import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping


class ElasticsearchCluster(ElasticsearchEndpoint):
    """
    A node that keeps the cluster together and holds data, and one that holds data only.

    Requests of the tests go to :attr:`steady`, which no test kills.

    :param version: of both nodes
    """

    def __init__(self, *, version: str = VERSION) -> None:
        name = f"batchkit-{secrets.token_hex(4)}"
        self.steady = ElasticsearchServer(
            settings=_settings(
                name, "steady", roles=["master", "data"], **{"cluster.initial_master_nodes": ["steady"]}
            ),
            version=version,
            heap="448m",
        )
        seeds = [f"127.0.0.1:{self.steady.transport_port}"]
        self.mortal = ElasticsearchServer(
            settings=_settings(name, "mortal", roles=["data"], **{"discovery.seed_hosts": seeds}),
            version=version,
            heap="448m",
        )
        super().__init__(self.steady.url)

    def start(self) -> None:
        """Start both nodes and wait until they have found each other."""
        self.steady.launch()
        self.mortal.launch()
        self.steady.wait_until_ready()
        self.mortal.wait_until_ready()
        self.wait_until_whole()

    def stop(self) -> None:
        """End both nodes in order and remove their folders."""
        self.mortal.stop()
        self.steady.stop()

    def revive(self) -> None:
        """Start the mortal node again, unless it runs, and wait until every copy is where it belongs."""
        if not self.mortal.processes():
            self.mortal.start()
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Wait until both nodes are there and every copy of every shard is started."""
        self.request("GET", "/_cluster/health?wait_for_nodes=2&wait_for_status=green&timeout=60s", timeout=70)

    def make_index(self, name: str, *, shards: int = 1, **settings: object) -> None:
        """Make an index whose primaries are on the mortal node and whose replicas are on the steady one."""
        only_mortal = {"routing.allocation.include._name": "mortal", "number_of_replicas": 0}
        body = {
            "settings": {"number_of_shards": shards, **only_mortal, **settings},
            "mappings": {"enabled": False},
        }
        self.request("PUT", f"/{name}?wait_for_active_shards=all", body)
        both = {"routing.allocation.include._name": None, "number_of_replicas": 1}
        self.request("PUT", f"/{name}/_settings", {"index": both})
        self.wait_until_whole()
        assert self.primaries(name) == {"mortal"}

    def mortal_id(self) -> str:
        """Return what the cluster calls the mortal node, for preferences of searches."""
        (id_,) = self.request("GET", "/_nodes/mortal/http")["nodes"]
        return str(id_)

    def primaries(self, name: str) -> set[str]:
        """Return the names of the nodes that hold an index's primaries."""
        rows = self.request("GET", f"/_cat/shards/{name}?format=json&h=prirep,node")
        return {row["node"] for row in rows if row["prirep"] == "p"}


def _settings(cluster: str, node: str, *, roles: list[str], **more: object) -> Mapping[str, object]:
    return {
        "cluster.name": cluster,
        "node.name": node,
        "node.roles": roles,
        "discovery.type": None,
        **more,
    }
