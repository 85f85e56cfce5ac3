"""Reads what a Python function returns: for tests, small jobs and sources that have no connector yet."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.connectors.encoding import encode_record, salvage
from airflow_batchkit.engine.exceptions import (
    OrderError,
    PermanentError,
    RecordError,
    TransientError,
    UsageError,
)
from airflow_batchkit.engine.types import (
    Cursor,
    Page,
    Record,
    Sizing,
    Total,
    UnreadableRecord,
    record_size,
)
from airflow_batchkit.engine.values import Value, qualified_name

if TYPE_CHECKING:
    from airflow_batchkit.engine.source import OpenContext


@dataclass(frozen=True, kw_only=True, repr=False)
class IterableSource(Value):
    """Records out of a Python iterable, in its order.

    A resumed run calls the function again and passes over what was done, so it must return the same
    records in the same order each time. The ids passed over are checked against the cursor: a
    changed iterable fails the run instead of losing records. One partition. A record that has no exact form
    in JSON (NaN, an infinity, half a character, a type that JSON does not know) becomes a dead letter.

    :param records: called without arguments; returns an iterable of dicts. When that has a ``len()``,
        progress is shown as a part of the whole.
    :param key: field that holds each record's id. Default: the record's position, from 1.
    """

    records: Callable[[], Iterable[Mapping[str, Any]]]
    key: str | None = None

    @override
    def check(self) -> None:
        """Refuse what cannot be called.

        :raises UsageError: ``records`` is no function, or ``key`` is empty.
        """
        if not callable(self.records):
            raise UsageError(f"IterableSource(records=…): {type(self.records).__name__} is not a function")
        if self.key == "":
            raise UsageError("IterableSource(key=''): must name a field; leave it out to count the records")

    def open(self, context: OpenContext) -> OpenIterableSource:
        """Call the function for the first time.

        :raises UsageError: it returns no iterable of records, or ``start_at`` is not a number of records.
        """
        return OpenIterableSource(self, context)


class OpenIterableSource:
    """An open :class:`IterableSource`."""

    def __init__(self, settings: IterableSource, context: OpenContext) -> None:
        self._settings = settings
        self._name = qualified_name(settings.records)
        self._closed = threading.Event()
        self._skipped = _start_at(context.start_at)
        # Called here already, so that a function that cannot work fails before anything is owned or written.
        self._first: Iterable[Mapping[str, Any]] | None = self._call()
        self._length = len(self._first) if isinstance(self._first, Sized) else None

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """The function's name, and which field is the key."""
        return {"source": _short_hash(self._name), "query": _short_hash(repr(self._settings.key))}

    @property
    def partitions(self) -> Sequence[str]:
        """One: an iterable has no parts."""
        return ("iterable",)

    @property
    def total(self) -> Total | None:
        """The length where there is one."""
        return None if self._length is None else Total(records=max(0, self._length - self._skipped))

    @property
    def environment(self) -> Mapping[str, Any]:
        """The function's name."""
        return {"source": "iterable", "records": self._name}

    @property
    def state(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def read(self, partition: int, after: Cursor | None, sizing: Sizing) -> Iterator[Page]:
        """Deliver the records page by page.

        :raises OrderError: the records before the cursor are not those of the leg before, or an id comes
            twice in a row.
        :raises PermanentError: a record is no dict, or has no key field.
        """
        del partition
        records = self._call() if self._first is None else self._first
        self._first = None
        iterator = iter(records)
        position = self._skipped if after is None else int(after["position"])
        seen = self._pass_over(iterator, position, after)
        while page := self._page(iterator, position, seen, sizing):
            yield page
            position += len(page.records)

    def close(self) -> None:
        """End the reading at its next record; a function that hangs itself is not interrupted."""
        self._closed.set()

    def _call(self) -> Iterable[Mapping[str, Any]]:
        returned: object = self._settings.records()
        if not isinstance(returned, Iterable) or isinstance(returned, Mapping | str | bytes):
            raise UsageError(f"{self._name}() returned {type(returned).__name__}, not an iterable of dicts")
        return returned

    def _pass_over(
        self, iterator: Iterator[Mapping[str, Any]], position: int, after: Cursor | None
    ) -> _SeenRecords:
        seen = _SeenRecords()
        passed = 0
        for passed, fields in enumerate(islice(iterator, position), start=1):
            self._check_open()
            seen.add(self._record(fields, passed), keyed=self._settings.key is not None)
        if after is not None and (passed < position or seen.digest() != after["digest"]):
            raise OrderError(
                f"the first {position:,} records of {self._name}() are not those that were done; restart the "
                "run, or let the function return the same records in the same order each time"
            )
        return seen

    def _page(
        self, iterator: Iterator[Mapping[str, Any]], position: int, seen: _SeenRecords, sizing: Sizing
    ) -> Page | None:
        before = seen.copy()
        keyed = self._settings.key is not None
        records: list[Record] = []
        nbytes = 0
        # The sizes are asked before the iterator is: what is taken from it cannot be put back.
        while len(records) < sizing.page_records and nbytes < sizing.page_bytes:
            self._check_open()
            fields = next(iterator, None)
            if fields is None:
                break
            record = self._record(fields, position + len(records) + 1)
            if keyed and seen.last_id == record.id:
                raise OrderError(f"{self._name}() returned id {record.id!r} twice in a row")
            seen.add(record, keyed=keyed)
            records.append(record)
            nbytes += record_size(record)

        def cursor_at(index: int) -> Cursor:
            upto = before.copy()
            for record in records[: index + 1]:
                upto.add(record, keyed=keyed)
            return {"position": position + index + 1, "digest": upto.digest()}

        return Page(records, nbytes, cursor_at=cursor_at) if records else None

    def _record(self, fields: Mapping[str, Any], number: int) -> Record:
        key = self._settings.key
        place = f"record {number:,} of {self._name}()"
        if not isinstance(fields, Mapping):
            raise PermanentError(f"{place} is a {type(fields).__name__}, not a dict")
        if key is not None and fields.get(key) is None:
            raise PermanentError(f"{place} has no field {key!r} to be its id")
        try:
            name = str(number if key is None else fields[key])
            name.encode()
        except ValueError:  # half a character, or a number of more digits than Python writes
            raise PermanentError(f"{place} cannot be named: its field {key!r} has no text") from None
        try:
            return Record(name, encode_record(fields))
        except RecordError as error:
            return UnreadableRecord(name, salvage(fields), message=f"{place}: {error}")

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise TransientError(f"{self._name}() was being read when the source was closed")


class _SeenRecords:
    """Remembers in a few bytes which records came, in which order."""

    def __init__(self) -> None:
        self.last_id: str | None = None
        self._hash = hashlib.sha256()

    def add(self, record: Record, *, keyed: bool) -> None:
        self.last_id = record.id
        # What is kept of an unreadable record may hold the address of an object, which is never the same.
        by_id = keyed or isinstance(record, UnreadableRecord)
        content = record.id.encode() if by_id else bytes(record.body)
        self._hash.update(b"%d:%b" % (len(content), content))

    def digest(self) -> str:
        return self._hash.hexdigest()[:16]

    def copy(self) -> _SeenRecords:
        other = _SeenRecords()
        other.last_id, other._hash = self.last_id, self._hash.copy()
        return other


def _start_at(start_at: str | None) -> int:
    if start_at is None:
        return 0
    if not start_at.isdecimal():
        raise UsageError(f"start_at={start_at!r}: an iterable starts at a number of records to leave out")
    return int(start_at)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
