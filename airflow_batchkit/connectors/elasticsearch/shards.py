"""Which shards there are to read, what they are called, and how to know them again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from airflow_batchkit.engine.exceptions import PermanentError, TransientError

if TYPE_CHECKING:
    from airflow_batchkit.connectors.elasticsearch.rest import Rest

DEFAULT_MAX_RESULT_WINDOW = 10_000
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
    :param created: when, in milliseconds since 1970 by the server's clock.
    :param sequence_numbers: whether its documents have any.
    :param time_series: its documents are identified by their dimensions and time.
    :param partial: it is mounted from a snapshot without being there as a whole (the frozen tier).
    """

    name: str
    uuid: str
    shards: int
    max_result_window: int = DEFAULT_MAX_RESULT_WINDOW
    created: int = 0
    sequence_numbers: bool = True
    time_series: bool = False
    partial: bool = False


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
    :param history: its ``history_uuid`` when the source was opened; None where it may not be asked for.
    :param filter: what an alias lets through of it, as the server keeps it; None for everything.
    """

    index: Index
    number: int
    history: str | None
    filter: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Its name as a partition: safe in object keys, and different for different shards."""
        digits = len(str(self.index.shards - 1))
        return f"{_safe(self.index.name)}.{self.number:0{digits}d}"

    @property
    def about(self) -> str:
        """How messages call it."""
        return f"index {self.index.name!r} shard {self.number}"


def shard_states(rest: Rest, path: str, *, about: str) -> dict[str, dict[int, ShardState]]:
    """Ask the primary copies of some indices' shards; one that is not available is missing from the answer.

    :param path: the indices' names, as part of a path.
    :param about: what to call them in messages.
    :raises IndexMissingError: an index was deleted.
    :raises ForbiddenError: the ``monitor`` privilege is missing.
    """
    target = f"/{path}/_stats/docs,store?level=shards&filter_path={_STATS_FIELDS}"
    stats = decoded(rest.call("GET", target, about=about).body, _Stats, about)
    return {name: _primaries(index) for name, index in stats.indices.items()}


def _primaries(stats: _IndexStats) -> dict[int, ShardState]:
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
    identity = [
        (shard.index.name, shard.index.uuid, shard.number, shard.history, shard.filter) for shard in shards
    ]
    return hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()[:16]


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
