"""What a source looks up when it is opened: the shards, how many documents match, and facts for the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from airflow_batchkit.connectors.elasticsearch.errors import ForbiddenError
from airflow_batchkit.connectors.elasticsearch.point_in_time import refresh
from airflow_batchkit.connectors.elasticsearch.shards import (
    Shard,
    available,
    decoded,
    look_up,
    shard_states,
)
from airflow_batchkit.engine.exceptions import TransientError

if TYPE_CHECKING:
    import logging

    from airflow_batchkit.connectors.elasticsearch.rest import Rest

HTTP_OK = 200


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found.

    :param shards: in the order of their names.
    :param facts: of the cluster and its indices, for the log's start block.
    """

    shards: list[Shard]
    facts: dict[str, Any]


def survey(rest: Rest, names: Sequence[str], log: logging.Logger) -> Survey:
    """Look up the shards of some indices.

    :raises UsageError: an index is not there, or cannot be read by sequence numbers.
    :raises TransientError: a shard is not available.
    """
    log.info("looking up %s at %s", ", ".join(names), rest.hosts)
    found = Survey([], {"hosts": rest.hosts, **_cluster(rest)})
    for name in names:
        index = look_up(rest, name)
        states = available(index, shard_states(rest, name))
        found.shards.extend(Shard(index, number, states[number].history) for number in range(index.shards))
        found.facts[f"index {name}"] = {
            "uuid": index.uuid,
            "shards": index.shards,
            "documents": sum(state.docs for state in states.values()),
            "store_bytes": sum(state.store_bytes for state in states.values()),
        }
    found.shards.sort(key=lambda shard: shard.name)
    return found


def count(rest: Rest, names: Sequence[str], query: Mapping[str, Any], log: logging.Logger) -> int:
    """Count what matches, after a refresh; this is also where the server checks the query.

    :raises UsageError: the query is malformed.
    :raises TransientError: a shard could not count.
    """
    log.info("counting what the query matches")
    total = 0
    for name in names:
        about = f"index {name!r}"
        try:
            refresh(rest, name)
        except ForbiddenError as error:
            log.warning("what was indexed in the last moments may be missing from the total: %s", error)
        answer = rest.call("POST", f"/{quote(name, safe='')}/_count", {"query": query}, about=about)
        counted = decoded(answer.body, _Counted, about)
        if counted.shards.failed:
            raise TransientError(f"{about}: {counted.shards.failed} shards could not count their documents")
        total += counted.count
    return total


def _cluster(rest: Rest) -> dict[str, Any]:
    """Return what may be known of the cluster: credentials for one index need not be allowed to ask."""
    about = "cluster health"
    answer = rest.call("GET", "/_cluster/health", about=about, expect=(403,))
    if answer.status != HTTP_OK:
        return {}
    health = decoded(answer.body, _Health, about)
    return {"cluster": health.cluster_name, "status": health.status, "nodes": health.number_of_nodes}


class _Health(msgspec.Struct):
    cluster_name: str = ""
    status: str = ""
    number_of_nodes: int = 0


class _Failed(msgspec.Struct):
    failed: int = 0


class _Counted(msgspec.Struct):
    count: int
    shards: _Failed = msgspec.field(name="_shards")
