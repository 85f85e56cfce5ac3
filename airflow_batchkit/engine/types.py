"""The few things that flow between the stages: records, pages, cursors, and how large they should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

Body: TypeAlias = bytes | msgspec.Raw
"""One JSON object as bytes; ``msgspec.Raw`` when it is a slice of the page it came in."""

Cursor: TypeAlias = Mapping[str, Any]
"""Small JSON object, opaque to the engine: resume strictly *after* it. Always the end of a window."""


class Record(msgspec.Struct, gc=False):
    """One item from a source. Its body stays bytes unless somebody transforms it.

    :param id: identity inside its source (an Elasticsearch ``_id``, a SQL key written as text).
    :param body: the record as one JSON object, exactly as the source holds it.
    :param routing: Elasticsearch routing value where one is set.
    :param index: set only where the source is more than one index: ``id`` alone is no identity there.
    :param version: set where the source must tell versions of one record apart.
    """

    id: str
    body: Body
    routing: str | None = None
    index: str | None = None
    version: int | None = None


class UnreadableRecord(Record, kw_only=True, gc=False):
    """A record that its source can name, but not read: it becomes a dead letter of the stage ``"source"``.

    Neither transform nor sink sees it.

    :param body: a JSON object that keeps what there is: ``{"readable": {…}, "unreadable": {…}}``, both by
        field.
    :param message: what cannot be read, and why; without the record's content.
    :param error_type: names the kind of trouble.
    """

    message: str
    error_type: str = "UnreadableRecord"


def on_one_line(body: bytes) -> bytes:
    """Take the line breaks between a body's tokens out; a body without any stays as it is, byte for byte."""
    if b"\n" not in body and b"\r" not in body:
        return body
    try:
        return msgspec.json.format(body, indent=-1)
    except (msgspec.DecodeError, RecursionError):
        # Half a surrogate pair, or very deep nesting. Inside a JSON string line breaks are always escaped, so
        # the bare ones are white space between tokens and can simply go.
        return body.translate(None, b"\r\n")


_RECORD_OVERHEAD = 16  # braces, separators and the "_id" key that a record costs besides id and body


def record_size(record: Record) -> int:
    """Return about how many bytes a record takes in a batch."""
    return len(record.body) + len(record.id) + _RECORD_OVERHEAD


@dataclass(slots=True)
class Page:
    """What a source delivered in one answer.

    :param records: in the partition's declared order; may be empty. One that cannot be read is an
        :class:`UnreadableRecord` at its place.
    :param nbytes: size of the records in bytes, as held in memory; not less than the sum of their
        :func:`record_size`, for batches are cut by it.
    :param window_end: the cursor to resume after when this page is the last of a window, else None.
    :param cursor_at: for sources that can resume after *any* record: the cursor after ``records[i]``.
        The engine then ends a window wherever it closes a batch. Such a source leaves ``window_end`` None.
    """

    records: list[Record]
    nbytes: int
    window_end: Cursor | None = None
    cursor_at: Callable[[int], Cursor] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """How many records a source will deliver, as far as it knows.

    :param records: the number.
    :param exact: False for an estimate (a planner's guess, a source that changes).
    """

    records: int
    exact: bool = True


@dataclass(slots=True, kw_only=True)
class Sizing:
    """How large windows and pages should be; a source treats every number as a wish except where noted.

    Each reader has one of its own, whose ``page_…`` change while it reads: they are looked at before each
    page. After a pushback they are smaller, and grow back with the pages that arrive.

    :param batch_records: at most this many records in a window that the source cuts itself; None: no limit.
    :param batch_bytes: bytes of a window that the source cuts itself.
    :param first_page_records: records in a reader's first page, as long as it does not know their size.
    :param page_records: never more records than this in one page (a rate limit needs small steps).
    :param page_bytes: bytes to aim at for one page.
    :param window_seconds: reading one window should not take much longer.
    """

    batch_records: int | None
    batch_bytes: int
    first_page_records: int = 500
    page_records: int = 10_000
    page_bytes: int = 3 * 1024 * 1024
    window_seconds: float = 2.0


@dataclass(slots=True)
class Rejection:
    """One record that was given up, and why.

    :param record: the record as it was read (before the transform).
    :param stage: ``"source"``, ``"transform"`` or ``"sink"``.
    :param error_class: ``record``, ``permanent``, …: how the connector's error table classes it.
    :param error_type: exception class, or the server's own name for the error.
    :param message: one line, bounded, without the record's content.
    :param stack_trace: where it happened; empty for errors that a server reported.
    """

    record: Record
    stage: str
    error_class: str
    error_type: str
    message: str
    stack_trace: str = ""


@dataclass(slots=True)
class WriteResult:
    """What became of one batch: every record handed to the writer is in exactly one of the four.

    :param written: durable now.
    :param unchanged: the sink already had them, equal.
    :param skipped: not written because of LOCAL mode.
    :param rejected: given up by the sink, one by one.
    """

    written: int = 0
    unchanged: int = 0
    skipped: int = 0
    rejected: list[Rejection] = field(default_factory=list)
