"""Which shards there are to read, what they are called, and how to know them again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import msgspec

from airflow_batchkit.connectors.elasticsearch.errors import IndexMissingError
from airflow_batchkit.engine.exceptions import PermanentError, TransientError, UsageError

if TYPE_CHECKING:
    from airflow_batchkit.connectors.elasticsearch.rest import Rest

DEFAULT_MAX_RESULT_WINDOW = 10_000
_FORBIDDEN_IN_NAMES = re.compile(r'[\\/*?"<>| ,#:]')
_STATS_FIELDS = (
    "indices.*.uuid,indices.*.shards.*.routing.primary,indices.*.shards.*.seq_no.global_checkpoint,"
    "indices.*.shards.*.commit.user_data.history_uuid,indices.*.shards.*.docs.count,"
    "indices.*.shards.*.store.size_in_bytes"
)
Decoded = TypeVar("Decoded")


@dataclass(frozen=True, slots=True)
class Index:
    """A concrete index.

    :param name: as in requests.
    :param uuid: differs once the index is made anew.
    :param shards: number of its shards.
    :param max_result_window: the most records that a page may hold.
    """

    name: str
    uuid: str
    shards: int
    max_result_window: int


@dataclass(frozen=True, slots=True)
class ShardState:
    """What a shard's primary copy says of itself.

    :param uuid: of the index.
    :param history: differs once the shard is restored or loses acknowledged writes.
    :param global_checkpoint: every write up to this sequence number is on every copy.
    :param docs: documents, with nested ones.
    :param store_bytes: size on disk.
    """

    uuid: str
    history: str
    global_checkpoint: int
    docs: int
    store_bytes: int


@dataclass(frozen=True, slots=True)
class Shard:
    """One partition.

    :param index: the index it belongs to.
    :param number: its number in the index.
    :param history: its ``history_uuid`` when the source was opened.
    """

    index: Index
    number: int
    history: str

    @property
    def name(self) -> str:
        """Its name as a partition: safe in object keys, and different for different shards."""
        digits = len(str(self.index.shards - 1))
        return f"{_safe(self.index.name)}.{self.number:0{digits}d}"

    @property
    def about(self) -> str:
        """How messages call it."""
        return f"index {self.index.name!r} shard {self.number}"


def check_index_name(name: str) -> None:
    """Refuse what is not the name of one concrete index.

    :raises UsageError: the name, and why.
    """
    if not name:
        raise UsageError("index is empty (did a template render to nothing?): name the index to read")
    if name == "_all" or name[0] in "-_+" or name in {".", ".."} or _FORBIDDEN_IN_NAMES.search(name):
        raise UsageError(
            f"index {name!r}: must be the name of one index, without wildcards, commas or date math; "
            "give several indices as a list"
        )


def look_up(rest: Rest, name: str) -> Index:
    """Find an index and check that it can be read by sequence numbers.

    :raises UsageError: there is no such index, it is an alias or a data stream, is closed, or has no sequence
        numbers or no ``_source``.
    """
    about = f"index {name!r}"
    try:
        answer = rest.call("GET", f"/{quote(name, safe='')}/_settings?flat_settings=true", about=about)
    except IndexMissingError as error:
        raise UsageError(f"{about}: there is no such index at {rest.hosts}") from error
    found = decoded(answer.body, dict[str, dict[str, dict[str, Any]]], about)
    if name not in found:
        raise UsageError(
            f"{about} is an alias or a data stream of {', '.join(sorted(found)[:3]) or 'nothing'}: "
            "name the concrete indices"
        )
    settings = found[name]["settings"]
    if settings.get("index.verified_before_close") == "true":
        raise UsageError(f"{about} is closed: open it, then run again")
    if settings.get("index.disable_sequence_numbers") == "true":
        raise UsageError(f"{about} has no sequence numbers (index.disable_sequence_numbers) to read it by")
    _check_source_is_stored(rest, name)
    return Index(
        name=name,
        uuid=settings["index.uuid"],
        shards=int(settings["index.number_of_shards"]),
        max_result_window=int(settings.get("index.max_result_window", DEFAULT_MAX_RESULT_WINDOW)),
    )


def shard_states(rest: Rest, index: str) -> dict[int, ShardState]:
    """Ask the primary copies of an index's shards; one that is not available is missing from the answer.

    :raises IndexMissingError: the index was deleted.
    """
    about = f"index {index!r}"
    target = f"/{quote(index, safe='')}/_stats/docs,store?level=shards&filter_path={_STATS_FIELDS}"
    stats = decoded(rest.call("GET", target, about=about).body, _Stats, about).indices.get(index)
    if stats is None:
        return {}
    return {
        int(number): ShardState(
            uuid=stats.uuid,
            history=copy.commit.user_data.history_uuid,
            global_checkpoint=max(-1, copy.seq_no.global_checkpoint),
            docs=copy.docs.count,
            store_bytes=copy.store.size_in_bytes,
        )
        for number, copies in stats.shards.items()
        for copy in copies
        if copy.routing.primary
    }


def available(index: Index, states: dict[int, ShardState]) -> dict[int, ShardState]:
    """Return the states of all shards of an index.

    :raises TransientError: one has no available primary.
    """
    missing = [number for number in range(index.shards) if number not in states]
    if missing:
        raise TransientError(
            f"index {index.name!r}: {len(missing)} of {index.shards} shards are not available "
            f"(shard {missing[0]} first): wait until the cluster is yellow or green"
        )
    return states


def same_shard(shard: Shard, state: ShardState | None) -> ShardState:
    """Return the state of a shard that is still the one that the run began with.

    :raises TransientError: it is not available.
    :raises PermanentError: the index was made anew or restored meanwhile.
    """
    if state is None:
        raise TransientError(f"{shard.about} is not available: no copy of it is started")
    if (state.uuid, state.history) != (shard.index.uuid, shard.history):
        raise PermanentError(
            f"{shard.about}: the index was made anew, or restored, while it was read: restart the run"
        )
    return state


def fingerprint(shards: Sequence[Shard]) -> str:
    """Return a short hash of what makes these shards the ones they are."""
    identity = [(shard.index.name, shard.index.uuid, shard.number, shard.history) for shard in shards]
    return hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:16]


def decoded(answer: bytes, form: type[Decoded], about: str) -> Decoded:
    """Decode an answer whose form is known.

    :raises TransientError: it is cut off.
    :raises PermanentError: it has another form.
    """
    try:
        return msgspec.json.decode(answer, type=form)
    except msgspec.ValidationError as error:
        raise PermanentError(f"{about}: the server's answer has an unexpected form: {error}") from error
    except msgspec.DecodeError as error:
        raise TransientError(f"{about}: the server's answer is not whole JSON: {error}") from error


def _check_source_is_stored(rest: Rest, name: str) -> None:
    about = f"index {name!r}"
    target = f"/{quote(name, safe='')}/_mapping?filter_path=*.mappings._source.enabled"
    mapping = rest.call("GET", target, about=about).body
    if b'"enabled":false' in mapping:
        raise UsageError(
            f"{about} stores no _source (switched off in its mapping): its documents cannot be exported"
        )


def _safe(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


class _Routing(msgspec.Struct):
    primary: bool


class _SeqNo(msgspec.Struct, frozen=True):
    global_checkpoint: int = -1


class _UserData(msgspec.Struct):
    history_uuid: str


class _Commit(msgspec.Struct):
    user_data: _UserData


class _Docs(msgspec.Struct, frozen=True):
    count: int = 0


class _Store(msgspec.Struct, frozen=True):
    size_in_bytes: int = 0


class _Copy(msgspec.Struct):
    routing: _Routing
    commit: _Commit
    seq_no: _SeqNo = _SeqNo()
    docs: _Docs = _Docs()
    store: _Store = _Store()


class _IndexStats(msgspec.Struct):
    uuid: str
    shards: dict[str, list[_Copy]] = {}


class _Stats(msgspec.Struct):
    indices: dict[str, _IndexStats] = {}
