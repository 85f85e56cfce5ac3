"""One answer of a search: sliced into records, not decoded."""

from __future__ import annotations

import re
from typing import Any, Generic, TypeVar

import msgspec

from airflow_batchkit.engine.exceptions import BatchkitError, OrderError, PermanentError, TransientError
from airflow_batchkit.engine.types import Record


class Hit(Record, gc=False):
    """A record as the search answer holds it: no conversion between the two.

    :param sort: what it was sorted by; its position in the shard comes last.
    """

    id: str = msgspec.field(name="_id")
    body: msgspec.Raw = msgspec.field(name="_source")
    routing: str | None = msgspec.field(default=None, name="_routing")
    version: int | None = msgspec.field(default=None, name="_version")
    sort: tuple[Any, ...] = ()


class IndexedHit(Hit, gc=False):
    """A hit of a source that is more than one index."""

    index: str | None = msgspec.field(default=None, name="_index")


class FieldsHit(Hit, gc=False):
    """A hit that comes as fields instead of as a document; without any where it has none of them."""

    body: msgspec.Raw = msgspec.field(name="fields", default_factory=lambda: msgspec.Raw(b"{}"))


class IndexedFieldsHit(FieldsHit, gc=False):
    """A hit of fields, of a source that is more than one index."""

    index: str | None = msgspec.field(default=None, name="_index")


HitType = TypeVar("HitType")

# Every escape is matched, so that the second backslash of an escaped one does not begin another.
_ESCAPE = re.compile(rb"\\(?:(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL)
_BODY = re.compile(rb'"(?:_source|fields)":\s*')


class _Total(msgspec.Struct):
    value: int


class _Hits(msgspec.Struct, Generic[HitType]):
    hits: list[HitType] = []
    total: _Total | None = None


class _Shards(msgspec.Struct):
    failed: int = 0


class PlainAnswer(msgspec.Struct, Generic[HitType]):
    """The parts of a search answer that matter.

    :param timed_out: the server gave up before it was done.
    :param shards: ``failed`` counts the shards without an answer.
    :param hits: the hits, and their total where it was asked for.
    """

    timed_out: bool
    shards: _Shards = msgspec.field(name="_shards")
    hits: _Hits[HitType]

    def check_whole(self, about: str) -> None:
        """Refuse an answer that leaves something out.

        :raises TransientError: it timed out, or a shard failed.
        """
        if self.timed_out or self.shards.failed:
            why = "timed out" if self.timed_out else "lacks a shard"
            raise TransientError(f"{about}: the search {why}; a part of an answer is never used")


class SearchAnswer(PlainAnswer[HitType], Generic[HitType]):
    """The answer of a search in a point in time.

    :param pit_id: the point in time to use from now on.
    """

    pit_id: str


class Position(msgspec.Struct):
    """The hit of a search that asks only where something is."""

    sort: tuple[int, ...]


AnswerType = TypeVar("AnswerType", bound=PlainAnswer[Any])

_hits: dict[tuple[bool, bool], msgspec.json.Decoder[Any]] = {
    (False, False): msgspec.json.Decoder(SearchAnswer[Hit]),
    (True, False): msgspec.json.Decoder(SearchAnswer[IndexedHit]),
    (False, True): msgspec.json.Decoder(SearchAnswer[FieldsHit]),
    (True, True): msgspec.json.Decoder(SearchAnswer[IndexedFieldsHit]),
}
_plain = msgspec.json.Decoder(PlainAnswer[IndexedHit])
_positions = msgspec.json.Decoder(SearchAnswer[Position])


def decode_page(answer: bytes, *, with_index: bool, about: str, fields: bool = False) -> SearchAnswer[Any]:
    """Slice an answer into records.

    :param with_index: set ``Record.index``.
    :param fields: the hits hold fields instead of documents.
    :param about: what was asked, for messages.
    :raises TransientError: the answer is cut off, timed out, or lacks a shard.
    :raises PermanentError: the documents have no ``_source``.
    """
    return _decode(_hits[with_index, fields], answer, about)


def decode_plain(answer: bytes, *, about: str) -> PlainAnswer[IndexedHit]:
    """Slice the answer of a search without a point in time into records, each with its index.

    :param about: what was asked, for messages.
    :raises TransientError: the answer is cut off, timed out, or lacks a shard.
    :raises PermanentError: the documents have no ``_source``.
    """
    return _decode(_plain, answer, about)


def decode_positions(answer: bytes, *, about: str) -> SearchAnswer[Position]:
    """Read an answer without documents.

    :raises TransientError: the answer is cut off, timed out, or lacks a shard.
    """
    return _decode(_positions, answer, about)


def _decode(decoder: msgspec.json.Decoder[AnswerType], answer: bytes, about: str) -> AnswerType:
    try:
        decoded = _decode_also_half_characters(decoder, answer)
    except msgspec.ValidationError as error:
        raise _unexpected(error, about) from error
    except msgspec.DecodeError as error:
        raise TransientError(
            f"{about}: the answer of {len(answer):,} bytes is not whole JSON: {error}"
        ) from error
    except RecursionError as error:
        raise PermanentError(f"{about}: a document is nested too deeply to be read") from error
    decoded.check_whole(about)
    return decoded


def _decode_also_half_characters(decoder: msgspec.json.Decoder[AnswerType], answer: bytes) -> AnswerType:
    """Decode an answer in which a document may hold the escape of half a surrogate pair.

    Elasticsearch keeps such a document, msgspec refuses it even where it only slices. It then slices a copy
    of the answer in which every surrogate is another escape of the same length, and each body is taken from
    the same place of the real answer.
    """
    try:
        return decoder.decode(answer)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        harmless = _ESCAPE.sub(_without_surrogate, answer)
        if harmless == answer:
            raise
    decoded = decoder.decode(harmless)
    places = _BODY.finditer(harmless)
    for hit in decoded.hits.hits:
        body = bytes(hit.body)
        start = next(place.end() for place in places if harmless.startswith(body, place.end()))
        hit.body = msgspec.Raw(answer[start : start + len(body)])
    return decoded


def _without_surrogate(escape: re.Match[bytes]) -> bytes:
    return b"\\u003f" if escape[1] else escape[0]


def _unexpected(error: msgspec.ValidationError, about: str) -> BatchkitError:
    if "_source" in str(error):
        return PermanentError(
            f"{about}: documents come without _source (switched off in the mapping?) and cannot be exported"
        )
    return PermanentError(f"{about}: the search answer has an unexpected form: {error}")


def check_order(records: list[Any], last: int, *, about: str) -> int:
    """Check that positions in the shard only grow, and return the last one.

    :param records: hits of one page.
    :param last: the position that the page before ended at, -1 for a window's first page.
    :raises OrderError: a position does not grow, so that going on after it could lose or repeat documents.
    """
    for record in records:
        position = record.sort[0]
        if position <= last:
            raise OrderError(
                f"{about}: position {position} came after {last}; the order of this shard cannot be trusted"
            )
        last = position
    return last
