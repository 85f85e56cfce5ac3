"""Dead letters as documents of one index, beside the notes that tell which of them count."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch.bulk import Action, Bulk
from airflow_batchkit.connectors.elasticsearch.errors import AnswerTooLargeError
from airflow_batchkit.connectors.letters.place import typed_url
from airflow_batchkit.connectors.letters.rows import PAGE_BYTES, LetterRow, LetterRows, by_pages
from airflow_batchkit.connectors.patience import patiently
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.kept_values import KeptValue

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_batchkit.connectors.elasticsearch.rest import Answer, Rest

_MISSING, _CONFLICT = 404, 409
_MAX_ID = 512
_AT_ONCE = 1_000
_LARGEST_ANSWER = 16 * PAGE_BYTES
_KEYWORD = {"type": "keyword", "ignore_above": 8_191}
_KEPT = {"type": "text", "index": False, "norms": False}
_SEARCHED = ("job", "run", "id", "index", "stage", "error_class", "error_type")
MAPPING: Mapping[str, Any] = {
    "dynamic": "strict",
    "properties": {
        "kind": {"type": "keyword"},
        "status": {"type": "keyword"},
        "set": {"type": "keyword"},
        "part": {"type": "keyword"},
        "number": {"type": "keyword"},
        "at": {"type": "date"},
        "letter": {
            "dynamic": False,
            "properties": {
                **dict.fromkeys(_SEARCHED, _KEYWORD),
                "message": {"type": "text"},
                "replays": {"type": "integer"},
            },
        },
        "record": _KEPT,
        "note": {"type": "keyword"},
        "content": _KEPT,
    },
}


class _Source(msgspec.Struct):
    letter: msgspec.Raw
    record: str
    part: str
    number: str


class _Hit(msgspec.Struct):
    source: msgspec.Raw = msgspec.field(name="_source", default=msgspec.Raw(b"null"))
    id: str = msgspec.field(name="_id", default="")
    sort: list[Any] = []


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Found(msgspec.Struct):
    hits: _Hits


class _Note(msgspec.Struct):
    seq_no: int = msgspec.field(name="_seq_no")
    primary_term: int = msgspec.field(name="_primary_term")
    source: dict[str, Any] = msgspec.field(name="_source")


class IndexRows(LetterRows):
    """Documents of one index; it is made, with its mapping, when the first run starts.

    :param rest: the connections; closed with this.
    :param index: its name.
    :param conn_id: name of the connection.
    """

    def __init__(self, rest: Rest, index: str, *, conn_id: str) -> None:
        self._rest = rest
        self._index = index
        self._conn_id = conn_id
        self._path = f"/{quote(index, safe='')}"
        self._bulk = Bulk(rest, index)

    @property
    @override
    def url(self) -> str:
        first, *others = self._rest.hosts.split(", ")
        hosts = ",".join([first, *(host.partition("://")[2] for host in others)])
        return typed_url(f"elasticsearch+{hosts}{self._path}", self._conn_id)

    @override
    def check(self) -> None:
        self._is_made()

    @override
    def create(self) -> None:
        if self._is_made():
            return
        if self._mapping() is None:
            # 400: somebody else was quicker.
            self._call("PUT", "", {"mappings": MAPPING}, expect=(400,))
        else:
            self._call("PUT", "/_mapping", MAPPING)
        self._call("GET", "/_mapping")

    @override
    def add(self, set_name: str, rows: Iterable[LetterRow]) -> int:
        # A bulk request would make an index that somebody deleted anew, without its mapping.
        self._call("GET", "/_mapping")
        return self._bulk.send(Action(_id(set_name, row), _document(set_name, row)) for row in rows)

    @override
    def read(self, set_name: str, part: str, after: str = "") -> Iterator[LetterRow]:
        self._refresh()
        return by_pages(lambda number, size: self._page(set_name, part, number, size), after)

    @override
    def count(self, set_name: str, part: str) -> int:
        self._refresh()
        answer = self._call("POST", "/_count", {"query": _of(set=set_name, part=part)})
        return int(msgspec.json.decode(answer.body)["count"])

    @override
    def parts(self, set_name: str) -> list[str]:
        self._refresh()
        body = {
            "size": 0,
            "query": _of(set=set_name),
            "aggs": {"parts": {"terms": {"field": "part", "size": _AT_ONCE}}},
        }
        answer = self._call("POST", "/_search", body)
        buckets = msgspec.json.decode(answer.body)["aggregations"]["parts"]["buckets"]
        return sorted(bucket["key"] for bucket in buckets)

    @override
    def remove(self, set_name: str, part: str) -> None:
        self._refresh()
        after = ""
        while hits := self._search(
            _of(set=set_name, part=part), sort="number", after=after, size=_AT_ONCE, source=False
        ):
            after = hits[-1].sort[0]
            self._bulk.send(Action(hit.id) for hit in hits)

    @override
    def note(self, name: str) -> KeptValue | None:
        answer = self._call("GET", f"/_doc/{_note_id(name)}", expect=(_MISSING,))
        if answer.status == _MISSING:
            return None
        note = msgspec.json.decode(answer.body, type=_Note)
        return KeptValue(
            content=str(note.source["content"]).encode(), version=f"{note.seq_no}.{note.primary_term}"
        )

    @override
    def write_note(self, name: str, content: bytes, *, version: str | None) -> str | None:
        seq_no, _, term = (version or "").partition(".")
        condition = "op_type=create" if version is None else f"if_seq_no={seq_no}&if_primary_term={term}"
        target = f"/_doc/{_note_id(name)}?{condition}"
        document = {"kind": "note", "note": name, "content": content.decode()}
        answer = self._call("PUT", target, document, expect=(_CONFLICT,))
        if answer.status == _CONFLICT:
            # Ours where the answer to the first try was lost.
            found = self.note(name)
            return found.version if found is not None and found.content == content else None
        written = msgspec.json.decode(answer.body)
        return f"{written['_seq_no']}.{written['_primary_term']}"

    @override
    def remove_note(self, name: str) -> None:
        self._call("DELETE", f"/_doc/{_note_id(name)}", expect=(_MISSING,))

    @override
    def notes(self, before: str) -> list[str]:
        if not self._is_made():
            return []
        self._refresh()
        names: list[str] = []
        query = {"bool": {"filter": [{"prefix": {"note": before}}]}}
        while hits := self._search(
            query, sort="note", after=names[-1] if names else "", size=_AT_ONCE, source=False
        ):
            names += [hit.sort[0] for hit in hits]
        return names

    @override
    def close(self) -> None:
        self._rest.close()

    def _is_made(self) -> bool:
        """Look whether it has our mapping; False also where it can still be given one.

        :raises UsageError: it was made for something else.
        """
        there = self._mapping()
        if there is None:
            return False
        wanted = {name: field.get("type", "object") for name, field in MAPPING["properties"].items()}
        found = {name: field.get("type", "object") for name, field in there.items()}
        unlike = [name for name, kind in wanted.items() if found.get(name) != kind]
        if unlike and (not found.keys().isdisjoint(wanted) or self._count_all()):
            raise UsageError(
                f"index {self._index!r} was not made for dead letters (its mapping has no {unlike[0]!r} as "
                "they need it): choose another index, or delete it"
            )
        return not unlike

    def _mapping(self) -> Mapping[str, Any] | None:
        answer = self._call("GET", "/_mapping", expect=(_MISSING,))
        if answer.status == _MISSING:
            return None
        indices = msgspec.json.decode(answer.body)
        if len(indices) != 1:
            raise UsageError(
                f"{self._index!r} names {len(indices):,} indices: dead letters need one of their own"
            )
        (index,) = indices.values()
        properties: Mapping[str, Any] = index.get("mappings", {}).get("properties", {})
        return properties

    def _count_all(self) -> int:
        self._refresh()
        return int(msgspec.json.decode(self._call("GET", "/_count").body)["count"])

    def _page(self, set_name: str, part: str, after: str, size: int) -> Sequence[LetterRow]:
        query = _of(set=set_name, part=part)
        while True:
            try:
                hits = self._search(query, sort="number", after=after, size=size, source=True)
            except AnswerTooLargeError:
                if size == 1:
                    raise
                size //= 2
            else:
                return [_row(hit) for hit in hits]

    def _search(
        self, query: Mapping[str, Any], *, sort: str, after: str, size: int, source: bool
    ) -> list[_Hit]:
        body = {
            "size": size,
            "query": query,
            "sort": [{sort: "asc"}],
            "track_total_hits": False,
            "_source": source,
            **({"search_after": [after]} if after else {}),
        }
        # One record may be larger than a whole page should be.
        limit = None if size == 1 else _LARGEST_ANSWER
        answer = self._call("POST", "/_search?allow_partial_search_results=false", body, max_bytes=limit)
        return msgspec.json.decode(answer.body, type=_Found).hits.hits

    def _refresh(self) -> None:
        self._call("POST", "/_refresh")

    def _call(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        *,
        expect: tuple[int, ...] = (),
        max_bytes: int | None = None,
    ) -> Answer:
        about = f"dead letters in index {self._index!r}"

        def once() -> Answer:
            return self._rest.call(
                method, f"{self._path}{target}", body, about=about, expect=expect, max_bytes=max_bytes
            )

        return once() if max_bytes is not None else patiently(once)


def _of(**terms: str) -> dict[str, Any]:
    return {"bool": {"filter": [{"term": {name: value}} for name, value in terms.items()]}}


def _document(set_name: str, row: LetterRow) -> bytes:
    at = msgspec.json.decode(row.letter)["at"]
    return msgspec.json.encode(
        {
            "kind": "letter",
            "status": "settled" if row.settled else "staged",
            "set": set_name,
            "part": row.part,
            "number": row.number,
            "at": datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="milliseconds"),
            "letter": msgspec.Raw(row.letter),
            "record": row.record.decode(),
        }
    )


def _row(hit: _Hit) -> LetterRow:
    found = msgspec.json.decode(hit.source, type=_Source)
    return LetterRow(
        part=found.part, number=found.number, letter=bytes(found.letter), record=found.record.encode()
    )


def _id(set_name: str, row: LetterRow) -> str:
    return _bounded(f"{set_name}/{row.part}/{row.number}")


def _note_id(name: str) -> str:
    return quote(_bounded(name), safe="")


def _bounded(name: str) -> str:
    if len(name.encode()) <= _MAX_ID:
        return name
    return f"{name[:64]}-{hashlib.sha256(name.encode()).hexdigest()}"
