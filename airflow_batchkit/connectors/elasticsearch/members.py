"""Which concrete indices the names in a source stand for, and what of each of them they show.

The server itself resolves aliases, data streams and patterns, as it does for a search: which filter holds for
an index that is reached by several names is not worked out here a second time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import msgspec

from airflow_batchkit.connectors.elasticsearch.errors import ForbiddenError, IndexMissingError
from airflow_batchkit.connectors.elasticsearch.shards import DEFAULT_MAX_RESULT_WINDOW, Index, decoded
from airflow_batchkit.engine.exceptions import TransientError, UsageError

if TYPE_CHECKING:
    import logging

    from airflow_batchkit.connectors.elasticsearch.rest import Rest

# A request line may have 4,096 bytes (``http.max_initial_line_length``).
MAX_NAMES_BYTES = 3_000
_FORBIDDEN_IN_NAMES = re.compile(r'[\\/?"<>| ,#:]')


@dataclass(frozen=True, slots=True)
class Member:
    """A concrete index that is read.

    :param index: the index.
    :param shards: which of its shards: an alias with a search routing shows only some.
    :param filter: what an alias lets through, as the server keeps it; None for everything.
    :param aliases: the aliases that it was reached by.
    """

    index: Index
    shards: tuple[int, ...]
    filter: Mapping[str, Any] | None
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the user called the indices, and what to do where a name stands for nothing.

    :param expressions: indices, aliases, data streams, patterns, and exclusions such as ``-orders-test``.
    :param ignore_unavailable: leave out what is missing or closed instead of refusing it.
    :param allow_no_indices: read nothing, instead of refusing, where nothing is left.
    """

    expressions: tuple[str, ...]
    ignore_unavailable: bool = False
    allow_no_indices: bool = False

    @property
    def about(self) -> str:
        """How messages call them."""
        return f"index {', '.join(self.expressions)!r}"

    @property
    def parameters(self) -> str:
        """The part of a request's query string that makes the server leave out what is left out here."""
        return f"ignore_unavailable={str(self.ignore_unavailable).lower()}"

    def paths(self) -> Iterator[str]:
        """Yield the names as parts of paths, in as few requests as fit."""
        if any(text.startswith("-") for text in self.expressions):
            yield _path(self.expressions)  # an exclusion belongs to all the names before it
        else:
            yield from paths(self.expressions)


def check_expression(text: str, *, first: bool) -> None:
    """Refuse what no index, alias, data stream or pattern can be called.

    :param first: nothing comes before it that could be excluded from.
    :raises UsageError: the text, and why.
    """
    if not text:
        raise UsageError("index is empty (did a template render to nothing?): name the index to read")
    name = text.removeprefix("-")
    if not name.strip("*") or name == "_all":
        raise UsageError(
            f"index {text!r} would be every index of the cluster: begin the pattern with a name, orders-*"
        )
    if text.startswith("-") and first:
        raise UsageError(f"index {text!r} excludes something from nothing: write what to read before it")
    if name[0] in "-_+" or name in {".", ".."} or _FORBIDDEN_IN_NAMES.search(name):
        raise UsageError(
            f"index {text!r}: must be one index, alias, data stream or pattern such as orders-*, without "
            "commas, date math or another cluster's name; give several as a list"
        )


def find_members(rest: Rest, names: Names, log: logging.Logger) -> list[Member]:
    """Find the indices, sorted by name, and check that each can be read.

    :raises UsageError: a name stands for nothing, or an index is closed; the message says which setting
        leaves it out.
    :raises TransientError: a shard has no copy that could be searched.
    """
    found = _search_shards(rest, names, log)
    members: list[Member] = []
    for path in paths(sorted(found)):
        settings = _settings(rest, path, names)
        members += [
            _member(name, entry.settings, found[name])
            for name, entry in sorted(settings.items())
            if not _left_out(name, entry.settings, names, log)
        ]
    if not members and not names.allow_no_indices:
        raise UsageError(
            f"{names.about} stands for no index at {rest.hosts} (did a template render to the wrong name?); "
            "allow_no_indices=True reads nothing in that case"
        )
    return members


def paths(names: Sequence[str]) -> Iterator[str]:
    """Yield names as parts of paths, each short enough for one request."""
    group: list[str] = []
    for name in names:
        if group and len(_path([*group, name])) > MAX_NAMES_BYTES:
            yield _path(group)
            group = []
        group.append(name)
    if group:
        yield _path(group)


@dataclass(slots=True)
class _Found:
    shards: set[int]
    filter: Mapping[str, Any] | None
    aliases: set[str]

    def or_also(self, other: _Found) -> None:
        """Take in what another request showed of the same index."""
        self.shards |= other.shards
        self.aliases |= other.aliases
        if self.filter is None or other.filter is None:
            self.filter = None
        elif self.filter != other.filter:
            self.filter = {"bool": {"should": [self.filter, other.filter]}}


def _search_shards(rest: Rest, names: Names, log: logging.Logger) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for path in names.paths():
        for name, seen in _searched(rest, path, names, log).items():
            if name in found:
                found[name].or_also(seen)
            else:
                found[name] = seen
    return found


def _searched(rest: Rest, path: str, names: Names, log: logging.Logger) -> dict[str, _Found]:
    target = f"/{path}/_search_shards?expand_wildcards=open,closed&filter_path=indices,shards"
    try:
        # Left to itself this request ignores what is missing.
        body = rest.call("GET", f"{target}&ignore_unavailable=false", about=names.about).body
    except IndexMissingError as error:
        if not names.ignore_unavailable:
            raise UsageError(
                f"{names.about}: there is no such index at {rest.hosts}: {error} "
                "(ignore_unavailable=True leaves out what is missing)"
            ) from error
        log.warning("%s: what is missing is left out: %s", names.about, error)
        body = rest.call("GET", f"{target}&ignore_unavailable=true", about=names.about).body
    answer = decoded(body, _SearchShards, names.about)
    empty = sum(not copies for copies in answer.shards)
    if empty:
        raise TransientError(
            f"{names.about}: {empty} of {len(answer.shards)} shards are not available: "
            "wait until the cluster is yellow or green"
        )
    found = {name: _Found(set(), entry.filter, set(entry.aliases)) for name, entry in answer.indices.items()}
    for copies in answer.shards:
        found[copies[0].index].shards.add(copies[0].shard)
    return found


def _settings(rest: Rest, path: str, names: Names) -> dict[str, _Settings]:
    try:
        answer = rest.call("GET", f"/{path}/_settings?flat_settings=true", about=names.about)
    except ForbiddenError as error:
        if path in names.expressions:
            raise
        raise ForbiddenError(
            f"{names.about} stands for {unquote(path)}: its indices are read one by one, and the connection "
            f"needs its privileges on them, not on an alias alone: {error}"
        ) from error
    return decoded(answer.body, dict[str, _Settings], names.about)


def _left_out(name: str, settings: Mapping[str, Any], names: Names, log: logging.Logger) -> bool:
    """Tell whether an index is closed and may be left out.

    :raises UsageError: it is closed and may not.
    """
    if settings.get("index.verified_before_close") != "true":
        return False
    if not names.ignore_unavailable:
        raise UsageError(
            f"index {name!r} is closed: open it, then run again (ignore_unavailable=True leaves it out)"
        )
    log.warning("index %r is closed and left out", name)
    return True


def _member(name: str, settings: Mapping[str, Any], found: _Found) -> Member:
    index = Index(
        name=name,
        uuid=settings["index.uuid"],
        shards=int(settings["index.number_of_shards"]),
        max_result_window=int(settings.get("index.max_result_window", DEFAULT_MAX_RESULT_WINDOW)),
        created=int(settings["index.creation_date"]),
        sequence_numbers=settings.get("index.disable_sequence_numbers") != "true",
        time_series=settings.get("index.mode") == "time_series",
        partial=settings.get("index.store.snapshot.partial") == "true",
    )
    return Member(index, tuple(sorted(found.shards)), found.filter, tuple(sorted(found.aliases)))


def _path(names: Sequence[str]) -> str:
    return ",".join(quote(name, safe="*") for name in names)


class _Settings(msgspec.Struct):
    settings: dict[str, Any]


class _Copy(msgspec.Struct):
    index: str
    shard: int


class _IndexEntry(msgspec.Struct):
    aliases: list[str] = []
    filter: dict[str, Any] | None = None


class _SearchShards(msgspec.Struct):
    indices: dict[str, _IndexEntry] = {}
    shards: list[list[_Copy]] = []
