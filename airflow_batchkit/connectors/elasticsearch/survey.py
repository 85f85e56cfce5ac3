"""What a source looks up when it is opened: the shards, how many documents match, and facts for the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_batchkit.connectors.elasticsearch.errors import ForbiddenError
from airflow_batchkit.connectors.elasticsearch.members import Member, Names, find_members, paths
from airflow_batchkit.connectors.elasticsearch.point_in_time import refresh
from airflow_batchkit.connectors.elasticsearch.shards import Shard, ShardState, decoded, shard_states
from airflow_batchkit.engine.exceptions import TransientError, UsageError
from airflow_batchkit.engine.types import Total

if TYPE_CHECKING:
    import logging

    from airflow_batchkit.connectors.elasticsearch.rest import Rest

HTTP_OK = 200
# A source may be hundreds of indices; a log is for people.
MAX_INDICES_TOLD = 10


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found.

    :param shards: in the order of their names.
    :param newest: when the newest index was made, in milliseconds by the server's clock.
    :param documents: in all indices, with nested ones; None where they may not be asked for.
    :param with_index: an id alone is no identity, because the names stand for several indices, or may.
    :param facts: of the cluster and its indices, for the log's start block.
    """

    shards: list[Shard]
    newest: int
    documents: int | None
    with_index: bool
    facts: dict[str, Any]


def survey(
    rest: Rest, names: Names, query: Mapping[str, Any], log: logging.Logger, *, newest: int | None
) -> Survey:
    """Look up the shards that some names stand for.

    :param query: resolved; tells whether partially mounted indices are needed.
    :param newest: what an earlier leg of the run found; later indices belong to the next run.
    :raises UsageError: a name stands for nothing, an index cannot be read.
    :raises TransientError: a shard is not available.
    """
    log.info("looking up %s at %s", ", ".join(names.expressions), rest.hosts)
    members = [
        member for member in find_members(rest, names, log) if not _is_later(member, names, newest, log)
    ]
    members = _without_empty_partial(rest, members, query, log)
    states = _states(rest, members, log, about=names.about)
    shards = [
        Shard(member.index, number, _history(member.index.name, number, states), member.filter)
        for member in members
        for number in member.shards
    ]
    return Survey(
        shards=sorted(shards, key=lambda shard: shard.name),
        newest=newest or max((member.index.created for member in members), default=0),
        documents=None if states is None else _documents(states),
        with_index=len(members) > 1 or _may_be_several(names, members),
        facts={"hosts": rest.hosts, **_cluster(rest), **_facts(members, states or {})},
    )


def check_source_is_stored(rest: Rest, found: Survey, *, about: str) -> None:
    """Refuse an index that keeps no documents to export.

    :param about: what to call the indices in messages.
    :raises UsageError: ``_source`` is switched off in its mapping.
    """
    for path in paths(sorted({shard.index.name for shard in found.shards})):
        target = f"/{path}/_mapping?filter_path=*.mappings._source.enabled"
        answer = rest.call("GET", target, about=about)
        for name, index in decoded(answer.body, dict[str, _Mapping], about).items():
            if index.mappings.source.enabled is False:
                raise UsageError(
                    f"index {name!r} stores no _source (switched off in its mapping): its documents cannot "
                    "be exported"
                )


def count(
    rest: Rest, names: Names, query: Mapping[str, Any], found: Survey, log: logging.Logger
) -> Total | None:
    """Count what matches, after a refresh; this is also where the server checks the query.

    :param found: its number of documents stands in where counting takes too long.
    :return: None where nothing is known.
    :raises UsageError: the query is malformed.
    """
    if not found.shards:
        return Total(records=0)
    log.info("counting what the query matches")
    total = 0
    for path in names.paths():
        try:
            refresh(rest, path, about=names.about, parameters=names.parameters)
        except ForbiddenError as error:
            log.warning("what was indexed in the last moments may be missing from the total: %s", error)
        try:
            total += _count(rest, f"{path}/_count?{names.parameters}", query, about=names.about)
        except TransientError as error:
            if found.documents is None:
                log.warning("it is not known how many documents match: %s", error)
                return None
            log.warning("the total is that of all documents, not only of those that match: %s", error)
            return Total(records=found.documents, exact=False)
    return Total(records=total)


def _count(rest: Rest, target: str, query: Mapping[str, Any], *, about: str) -> int:
    answer = rest.call("POST", f"/{target}", {"query": query}, about=about)
    counted = decoded(answer.body, _Counted, about)
    if counted.shards.failed:
        raise TransientError(f"{about}: {counted.shards.failed} shards could not count their documents")
    return counted.count


def _is_later(member: Member, names: Names, newest: int | None, log: logging.Logger) -> bool:
    """Tell whether an index came to a pattern, an alias or a data stream after the run had begun."""
    index = member.index
    if newest is None or index.created <= newest or index.name in names.expressions:
        return False
    log.warning("index %r was made after this run began and is left to the next one", index.name)
    return True


def _without_empty_partial(
    rest: Rest, members: Sequence[Member], query: Mapping[str, Any], log: logging.Logger
) -> list[Member]:
    """Leave out partially mounted indices in which nothing matches.

    :raises UsageError: something does: every page would be fetched from the snapshot repository.
    """
    partial = [member for member in members if member.index.partial]
    for path in paths([member.index.name for member in partial]):
        about = f"{len(partial)} partially mounted indices (frozen tier), such as {partial[0].index.name!r}"
        matching = _count(rest, f"{path}/_count", query, about=about)
        if matching:
            raise UsageError(
                f"{about}: {matching:,} documents there match, and reading them would fetch the indices "
                "from their snapshots piece by piece: mount them fully, or leave them out by query or names"
            )
        log.info("%s are left out: nothing matches there", about)
    return [member for member in members if not member.index.partial]


def _states(
    rest: Rest, members: Sequence[Member], log: logging.Logger, *, about: str
) -> dict[str, dict[int, ShardState]] | None:
    """Return the states of all shards; None where the connection may not ask for them.

    :raises TransientError: one has no available primary.
    """
    states: dict[str, dict[int, ShardState]] = {}
    try:
        for path in paths([member.index.name for member in members]):
            states.update(shard_states(rest, path, about=about))
    except ForbiddenError as error:
        log.warning("nothing is known of the shards but their number: %s", error)
        return None
    for member in members:
        name, numbers = member.index.name, member.shards
        missing = [number for number in numbers if number not in states.get(name, {})]
        if missing:
            raise TransientError(
                f"index {name!r}: {len(missing)} of {len(numbers)} shards are not available "
                f"(shard {missing[0]} first): wait until the cluster is yellow or green"
            )
    return states


def _history(name: str, number: int, states: Mapping[str, Mapping[int, ShardState]] | None) -> str | None:
    return None if states is None else states[name][number].history


def _documents(states: Mapping[str, Mapping[int, ShardState]]) -> int:
    return sum(state.docs for shards in states.values() for state in shards.values())


def _may_be_several(names: Names, members: Sequence[Member]) -> bool:
    """Tell whether the names may stand for more indices another day: a pattern or a data stream."""
    known = {member.index.name for member in members}.union(*(member.aliases for member in members))
    return any(name not in known and not name.startswith("-") for name in names.expressions)


def _facts(members: Sequence[Member], states: Mapping[str, Mapping[int, ShardState]]) -> dict[str, Any]:
    """Return what to tell of the indices, of the first ones where there are many."""
    facts: dict[str, Any] = {}
    for member in members[:MAX_INDICES_TOLD]:
        shards = states.get(member.index.name, {}).values()
        facts[f"index {member.index.name}"] = {
            "uuid": member.index.uuid,
            "shards": len(member.shards),
            "documents": sum(state.docs for state in shards),
            "store_bytes": sum(state.store_bytes for state in shards),
            **({"filtered_by_alias": True} if member.filter is not None else {}),
        }
    more = len(members) - MAX_INDICES_TOLD
    return {**facts, **({"more_indices": more} if more > 0 else {})}


def _cluster(rest: Rest) -> dict[str, Any]:
    """Return what may be known of the cluster: credentials for one index need not be allowed to ask."""
    about = "cluster health"
    answer = rest.call("GET", "/_cluster/health", about=about, expect=(403,))
    if answer.status != HTTP_OK:
        return {}
    health = decoded(answer.body, _Health, about)
    return {"cluster": health.cluster_name, "status": health.status, "nodes": health.number_of_nodes}


class _SourceMapping(msgspec.Struct):
    enabled: bool = True


class _Mappings(msgspec.Struct):
    source: _SourceMapping = msgspec.field(name="_source", default_factory=_SourceMapping)


class _Mapping(msgspec.Struct):
    mappings: _Mappings = msgspec.field(default_factory=_Mappings)


class _Health(msgspec.Struct):
    cluster_name: str = ""
    status: str = ""
    number_of_nodes: int = 0


class _Failed(msgspec.Struct):
    failed: int = 0


class _Counted(msgspec.Struct):
    count: int
    shards: _Failed = msgspec.field(name="_shards")
