"""Records as lines of JSON, without decoding them: every literal, escape and the order of keys survive.

A line is ``{"_id": …, <the record's own fields>}``, with ``_routing``, ``_index`` and ``_version`` where the
record has them. A record whose own fields include one of these names is wrapped:
``{"_id": …, "_source": {…}}``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from airflow_batchkit.engine.types import Body, Record, on_one_line

FORMAT = "ndjson"
FORMAT_VERSION = 1
RESERVED = frozenset({"_id", "_source", "_routing", "_index", "_version"})

_WHITE_SPACE = b" \t\r\n"
# Written out. A JSON text never holds a NUL, so it can stand between bodies that are looked at in one go.
_reserved_name = re.compile(rb'"_(?:id|source|routing|index|version)"').search
# Spelled with escapes: the names consist of "_" (005f) and small letters (0061 to 007a).
_escaped_name = re.compile(rb"\\u00[567]").search

_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines
_decode_names = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def format_lines(records: Sequence[Record]) -> bytes:
    """Return the records as lines, each with its line feed.

    The usual page is checked as a whole and put together by a handful of calls; whatever is unusual in it (a
    line break inside a record, an empty one, a name of ours) sends it the exact way, record by record.
    """
    if not records:
        return b""
    bodies = [record.body for record in records]
    identities = _identities(records)
    fields = _usual_fields(bodies)
    if fields is None:
        return b"".join(map(_line, identities, bodies))
    return b"".join([b'{"_id":%b,"%b\n' % pair for pair in zip(identities, fields, strict=True)])


def _identities(records: Sequence[Record]) -> list[bytes]:
    extended = [
        record
        for record in records
        if record.routing is not None or record.index is not None or record.version is not None
    ]
    if extended:
        return [_identity(record) for record in records]
    # An encoded id holds no line feed (it is escaped), so the encoder's own line feeds tell them apart.
    return _encode_lines([record.id for record in records]).split(b"\n")[: len(records)]


def _identity(record: Record) -> bytes:
    identity = _encode(record.id)
    if record.routing is not None:
        identity += b',"_routing":' + _encode(record.routing)
    if record.index is not None:
        identity += b',"_index":' + _encode(record.index)
    if record.version is not None:
        identity += b',"_version":%d' % record.version
    return identity


def _usual_fields(bodies: Sequence[Body]) -> list[bytes] | None:
    """Return what follows the ``{"`` of each body; None where any of them is unusual."""
    joined = b"\0".join(bodies)
    if b"\n" in joined or b"\r" in joined or _reserved_name(joined):
        return None
    if b"\\" in joined and _escaped_name(joined):
        return None
    fields = [bytes(body).removeprefix(b'{"') for body in bodies]
    # Two bytes of each body and a NUL between any two: what is missing otherwise does not begin as usual.
    return fields if sum(map(len, fields)) + 3 * len(fields) - 1 == len(joined) else None


def _line(identity: bytes, raw: Body) -> bytes:
    body = on_one_line(bytes(raw).strip(_WHITE_SPACE))
    if _holds_reserved_name(body):
        return b'{"_id":%b,"_source":%b}\n' % (identity, body)
    fields = body[1:].lstrip(_WHITE_SPACE)
    return b'{"_id":%b}\n' % identity if fields == b"}" else b'{"_id":%b,%b\n' % (identity, fields)


def _holds_reserved_name(body: bytes) -> bool:
    if not _reserved_name(body) and not _escaped_name(body):
        return False
    try:
        return not RESERVED.isdisjoint(_decode_names(body))
    except (msgspec.DecodeError, RecursionError):
        # Cannot tell whether the name is at the top: wrapping is always right, only less handsome.
        return True
