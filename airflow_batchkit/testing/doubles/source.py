"""A source in memory that misbehaves on request."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.types import Cursor, Page, Record, Sizing, Total
from airflow_batchkit.engine.values import Value
from airflow_batchkit.testing.script import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow_batchkit.engine.source import OpenContext


def made_up_records(count: int, *, prefix: str = "", first: int = 1, padding: int = 0) -> list[Record]:
    """Make records ``{"id": n, "text": …}`` with ids ``<prefix><n>``.

    :param count: how many.
    :param prefix: in front of each id, so that partitions do not share ids.
    :param first: the first number.
    :param padding: length of the text, to make records large.
    """
    return [
        Record(f"{prefix}{number}", msgspec.json.encode({"id": number, "text": "x" * padding}))
        for number in range(first, first + count)
    ]


class ReadLog:
    """What the source was asked and what it shall do, over all legs.

    ``opened`` holds the context of each open, ``reads`` each (partition name, cursor), ``closes`` counts.
    Calls in the script: ``"open"`` and ``"page:<partition>"``.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.opened: list[OpenContext] = []
        self.reads: list[tuple[str, Cursor | None]] = []
        self.closes = 0
        self._changes: dict[tuple[str, int], Callable[[list[Record]], list[Record]]] = {}

    def change_page(
        self, partition: str, number: int, change: Callable[[list[Record]], list[Record]]
    ) -> None:
        """Deliver one page differently (reversed, emptied, doubled), as a broken source would.

        :param partition: name of the partition.
        :param number: which page of it, from 1, counted over all legs.
        :param change: gets the page's records, returns what is delivered instead.
        """
        self._changes[partition, number] = change

    def delivered(self, partition: str, number: int, records: list[Record]) -> list[Record]:
        """Return the records of a page as they shall be delivered."""
        change = self._changes.get((partition, number))
        return records if change is None else change(records)


@dataclass(frozen=True, kw_only=True, repr=False)
class MemorySource(Value):
    """A source in memory.

    :param partitions: records by name of the partition.
    :param style: ``"records"`` can resume after any record, as SQL can (``Page.cursor_at``); ``"windows"``
        only at the end of a window, as Elasticsearch does (``Page.window_end``). Default ``"records"``.
    :param page_records: records in a page, at most. Default 10.
    :param window_records: records in a window; with ``style="windows"`` only. Default 20.
    :param total: what the source says it will deliver. Default ``"exact"``: the real number.
    :param fingerprints: what the source says of itself. Default: one for source, query and sort.
    :param log: what is kept from leg to leg.
    """

    partitions: Mapping[str, Sequence[Record]]
    style: Literal["records", "windows"] = "records"
    page_records: int = 10
    window_records: int = 20
    total: Total | Literal["exact"] | None = field(default="exact", repr=False)
    fingerprints: Mapping[str, str] = field(
        default_factory=lambda: {"source": "memory", "query": "all", "sort": "position"}
    )
    log: ReadLog = field(default_factory=ReadLog, repr=False)

    @override
    def check(self) -> None:
        """Refuse sizes below one.

        :raises UsageError: which size.
        """
        if self.page_records < 1 or self.window_records < 1:
            sizes = f"page_records={self.page_records}, window_records={self.window_records}"
            message = f"MemorySource({sizes}): must be 1 or more"
            raise UsageError(message)

    @override
    def serialize(self) -> dict[str, Any]:
        """Return the settings; of the records only how many there are."""
        partitions = {name: len(records) for name, records in self.partitions.items()}
        return {**super().serialize(), "partitions": partitions}

    def open(self, context: OpenContext) -> OpenMemorySource:
        """Open the source, unless the script says otherwise.

        :raises UsageError: ``start_at`` is not a number of records to leave out.
        """
        return OpenMemorySource(self, context)


class OpenMemorySource:
    """An open :class:`MemorySource`, one per leg."""

    def __init__(self, settings: MemorySource, context: OpenContext) -> None:
        self._settings = settings
        self._context = context
        self._closed = threading.Event()
        self._names = sorted(settings.partitions)
        self._first = self._start_at(context.start_at)
        with settings.log.script.playing("open", self._closed):
            settings.log.opened.append(context)

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """What the settings say."""
        return self._settings.fingerprints

    @property
    def partitions(self) -> Sequence[str]:
        """Names, sorted."""
        return self._names

    @property
    def total(self) -> Total | None:
        """What the settings say."""
        if self._settings.total == "exact":
            lengths = [len(records) for records in self._settings.partitions.values()]
            return Total(records=sum(max(0, length - self._first) for length in lengths))
        return self._settings.total

    @property
    def environment(self) -> Mapping[str, Any]:
        """Say what it is."""
        return {"source": "memory", "partitions": len(self._names)}

    @property
    def state(self) -> Mapping[str, Any]:
        """How many legs there have been: shows that the state comes back."""
        return {"legs": int(self._context.state.get("legs", 0)) + 1}

    def read(self, partition: int, after: Cursor | None, sizing: Sizing) -> Iterator[Page]:
        """Deliver a partition page by page, as the settings and the script say."""
        settings, name = self._settings, self._names[partition]
        settings.log.reads.append((name, after))
        records = settings.partitions[name]
        position = self._first if after is None else int(after["position"])
        window_end = position + settings.window_records
        while position < len(records):
            length = min(settings.page_records, sizing.page_records, len(records) - position)
            if settings.style == "windows":
                length = min(length, window_end - position)
            with settings.log.script.playing(f"page:{name}", self._closed) as number:
                delivered = settings.log.delivered(name, number, list(records[position : position + length]))
            yield self._page(delivered, position, ends_window=position + length in (window_end, len(records)))
            position += length
            if position == window_end:
                window_end += settings.window_records

    def close(self) -> None:
        """End every hanging read."""
        self._settings.log.closes += 1
        self._closed.set()

    def _page(self, records: list[Record], position: int, *, ends_window: bool) -> Page:
        page = Page(records, sum(len(record.body) for record in records))
        if self._settings.style == "records":
            page.cursor_at = lambda index: {"position": position + index + 1}
        elif ends_window:
            page.window_end = {"position": position + len(records)}
        return page

    def _start_at(self, start_at: str | None) -> int:
        if start_at is None:
            return 0
        if not start_at.isdecimal():
            message = f"start_at={start_at!r}: a memory source takes the number of records to leave out"
            raise UsageError(message)
        return int(start_at)
