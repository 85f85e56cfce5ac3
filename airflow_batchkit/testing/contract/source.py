"""What every source must do."""
# ruff: noqa: S101  # assert is how pytest tests

from __future__ import annotations

import dataclasses
import re
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import pytest

from airflow_batchkit.engine.exceptions import BatchkitError, UsageError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.source import OpenContext, OpenSource, Source
from airflow_batchkit.engine.types import Cursor, Page, Record, Sizing
from airflow_batchkit.testing.doubles import NoConnections

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Identified: TypeAlias = tuple[str | None, str | None, str, bytes]
"""Index, routing, id and exact body."""

MAX_CURSOR_BYTES = 1024
MAX_STATE_BYTES = 500
SMALL_STEPS = Sizing(batch_records=4, batch_bytes=1024, page_records=3, page_bytes=256)
LARGE_STEPS = Sizing(batch_records=None, batch_bytes=32 * 1024 * 1024)
READ_TIMEOUT = 60.0


def identified(record: Record) -> Identified:
    """Return what must be equal for two records to be the same."""
    return record.index, record.routing, record.id, bytes(record.body)


def in_reader_thread(source: OpenSource, partition: int, after: Cursor | None, sizing: Sizing) -> list[Page]:
    """Read a partition to its end in a thread of its own, as the engine does."""
    pages: list[Page] = []
    errors: list[BaseException] = []

    def read() -> None:
        try:
            pages.extend(source.read(partition, after, sizing))
        except BaseException as error:  # noqa: BLE001  # raised again below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(READ_TIMEOUT)
    assert not thread.is_alive(), f"partition {partition} was not read within {READ_TIMEOUT:.0f} s"
    if errors:
        raise errors[0]
    return pages


def resumable(pages: Sequence[Page]) -> Iterator[tuple[int, Cursor]]:
    """Yield every place at which the engine may resume: how many records lie before it, and its cursor."""
    before = 0
    for page in pages:
        if page.cursor_at is not None:
            for index in range(len(page.records)):
                yield before + index + 1, page.cursor_at(index)
        before += len(page.records)
        if page.window_end is not None:
            yield before, page.window_end


def over_the_wire(cursor: Cursor) -> Cursor:
    """Return the cursor as it comes back out of a stored checkpoint."""
    restored: Cursor = msgspec.json.decode(msgspec.json.encode(cursor))
    return restored


class SourceContract:
    """Inherit it, and override the fixtures :meth:`source`, :meth:`expected` and :meth:`refused`.

    The source should hold some tens of records, in more than one partition where it can: the suite resumes
    after each cursor there is.
    """

    @pytest.fixture
    def source(self) -> Source:
        """Return the source's settings."""
        message = "override the fixture source"
        raise NotImplementedError(message)

    @pytest.fixture
    def expected(self) -> Sequence[tuple[str, bytes]]:
        """Return id and exact body of every record in the source, in any order."""
        message = "override the fixture expected"
        raise NotImplementedError(message)

    @pytest.fixture
    def refused(self) -> Sequence[Source]:
        """Return settings that pass their own check but do not fit what is there (an unknown table)."""
        message = "override the fixture refused"
        raise NotImplementedError(message)

    @pytest.fixture
    def context(self) -> OpenContext:
        """Return what the source is opened with. Override it where the source needs connections."""
        return OpenContext(
            connections=NoConnections(), timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC)
        )

    @pytest.fixture
    def opened(self, source: Source, context: OpenContext) -> Iterator[OpenSource]:
        """Open the source for one test."""
        opened = source.open(context)
        yield opened
        opened.close()

    @pytest.mark.parametrize("sizing", [SMALL_STEPS, LARGE_STEPS], ids=["small steps", "large steps"])
    def test_every_record_comes_exactly_once(
        self, opened: OpenSource, expected: Sequence[tuple[str, bytes]], sizing: Sizing
    ) -> None:
        """All partitions together deliver each record once, its bytes unchanged, whatever the sizes."""
        records = [
            (record.id, bytes(record.body))
            for partition in range(len(opened.partitions))
            for page in in_reader_thread(opened, partition, None, sizing)
            for record in page.records
        ]
        assert sorted(records) == sorted(expected)

    def test_order_is_the_same_each_time(self, source: Source, context: OpenContext) -> None:
        """Two openings deliver the same records in the same order, in small steps and in large ones."""
        orders = []
        for sizing in (SMALL_STEPS, LARGE_STEPS):
            opened = source.open(context)
            orders.append(
                [
                    [identified(record) for page in pages for record in page.records]
                    for pages in (
                        in_reader_thread(opened, partition, None, sizing)
                        for partition in range(len(opened.partitions))
                    )
                ]
            )
            opened.close()
        assert orders[0] == orders[1]

    def test_resuming_gives_exactly_the_rest(self, source: Source, context: OpenContext) -> None:
        """After each cursor, in a new leg, come exactly the records behind it: none lost, none doubled."""
        first = source.open(context)
        state = msgspec.json.decode(msgspec.json.encode(dict(first.state)))
        whole = [
            in_reader_thread(first, partition, None, SMALL_STEPS)
            for partition in range(len(first.partitions))
        ]
        first.close()
        second = source.open(dataclasses.replace(context, state=state))
        for partition, pages in enumerate(whole):
            records = [identified(record) for page in pages for record in page.records]
            for before, cursor in resumable(pages):
                rest = in_reader_thread(second, partition, over_the_wire(cursor), SMALL_STEPS)
                found = [identified(record) for page in rest for record in page.records]
                assert found == records[before:], f"partition {partition}, resumed after {cursor}"
        second.close()

    def test_everything_lies_before_some_cursor(self, opened: OpenSource) -> None:
        """A cursor follows the last record of a partition, else it could never be finished."""
        for partition in range(len(opened.partitions)):
            pages = in_reader_thread(opened, partition, None, SMALL_STEPS)
            records = sum(len(page.records) for page in pages)
            assert max((before for before, _ in resumable(pages)), default=0) == records

    def test_pages_say_how_to_resume_in_one_way(self, opened: OpenSource) -> None:
        """A page has a cursor at each record, or one at its window's end, not both."""
        for partition in range(len(opened.partitions)):
            for page in in_reader_thread(opened, partition, None, SMALL_STEPS):
                assert page.cursor_at is None or page.window_end is None

    def test_cursors_are_small_json(self, opened: OpenSource) -> None:
        """A cursor survives JSON unchanged and takes less than 1 KB."""
        for partition in range(len(opened.partitions)):
            for _, cursor in resumable(in_reader_thread(opened, partition, None, SMALL_STEPS)):
                assert over_the_wire(cursor) == dict(cursor)
                assert len(msgspec.json.encode(cursor)) < MAX_CURSOR_BYTES

    def test_pages_are_bounded(self, opened: OpenSource) -> None:
        """No page has more records than allowed, and each says at least the size that its records have."""
        for partition in range(len(opened.partitions)):
            for page in in_reader_thread(opened, partition, None, SMALL_STEPS):
                assert len(page.records) <= SMALL_STEPS.page_records
                assert page.nbytes >= sum(len(bytes(record.body)) for record in page.records)

    def test_bodies_are_one_line_json_objects(self, opened: OpenSource) -> None:
        """Each body is one JSON object without line ends, ready to be a line of its own."""
        for partition in range(len(opened.partitions)):
            for page in in_reader_thread(opened, partition, None, LARGE_STEPS):
                for record in page.records:
                    body = bytes(record.body)
                    assert isinstance(msgspec.json.decode(body), dict)
                    assert b"\n" not in body
                    assert b"\r" not in body

    def test_reading_can_be_given_up_and_begun_again(self, opened: OpenSource) -> None:
        """A reader that is given up after its first page does not disturb the next reader."""
        for partition in range(len(opened.partitions)):
            given_up = iter(opened.read(partition, None, SMALL_STEPS))
            first = next(given_up, None)
            del given_up
            again = in_reader_thread(opened, partition, None, SMALL_STEPS)
            assert [identified(record) for record in (first.records if first else [])] == [
                identified(record) for record in (again[0].records if again else [])
            ]

    def test_partitions_can_be_read_side_by_side(self, opened: OpenSource) -> None:
        """Readers of several partitions, page by page in turn, deliver what each delivers alone."""
        alone = [
            [
                identified(record)
                for page in in_reader_thread(opened, partition, None, SMALL_STEPS)
                for record in page.records
            ]
            for partition in range(len(opened.partitions))
        ]
        readers = [iter(opened.read(partition, None, SMALL_STEPS)) for partition in range(len(alone))]
        together: list[list[Identified]] = [[] for _ in readers]
        unfinished = set(range(len(readers)))
        while unfinished:
            for partition in sorted(unfinished):
                page = next(readers[partition], None)
                if page is None:
                    unfinished.discard(partition)
                else:
                    together[partition] += [identified(record) for record in page.records]
        assert together == alone

    def test_exact_total_is_exact(self, opened: OpenSource, expected: Sequence[tuple[str, bytes]]) -> None:
        """A total that claims to be exact is the number of records."""
        if opened.total is not None and opened.total.exact:
            assert opened.total.records == len(expected)

    def test_partition_names_are_stable_and_safe(self, source: Source, context: OpenContext) -> None:
        """Names are sorted, unique, fit for object keys, and the same in the next leg."""
        first, second = source.open(context), source.open(context)
        names = list(first.partitions)
        assert names == sorted(set(names))
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names), names
        assert names == list(second.partitions)
        first.close()
        second.close()

    def test_fingerprints_are_short_and_stable(self, source: Source, context: OpenContext) -> None:
        """The same settings give the same fingerprints in the next leg, at least for source and query."""
        first, second = source.open(context), source.open(context)
        fingerprints = dict(first.fingerprints)
        assert {"source", "query"} <= fingerprints.keys()
        assert all(len(fingerprint) <= 64 for fingerprint in fingerprints.values())  # noqa: PLR2004  # a whole sha256
        assert fingerprints == dict(second.fingerprints)
        first.close()
        second.close()

    def test_facts_are_json(self, opened: OpenSource) -> None:
        """State and environment are JSON; the state is small, because it rides in the checkpoint."""
        assert len(msgspec.json.encode(dict(opened.state))) < MAX_STATE_BYTES
        msgspec.json.encode(dict(opened.environment))

    def test_settings_are_readable(self, source: Source) -> None:
        """Settings are JSON for the UI, and their text is the same in every process: no address in it."""
        settings: Mapping[str, object] = source.serialize()
        msgspec.json.encode(settings)
        assert not re.search(r"0x[0-9a-f]{6,}", repr(source))

    def test_closed_source_never_ends_early(self, source: Source, context: OpenContext) -> None:
        """After close() a reader goes on or raises; it does not end as if there were nothing more to read."""
        whole = source.open(context)
        records = sum(len(page.records) for page in in_reader_thread(whole, 0, None, SMALL_STEPS))
        whole.close()
        opened = source.open(context)
        reader = iter(opened.read(0, None, SMALL_STEPS))
        first = next(reader, None)
        opened.close()
        opened.close()
        try:
            rest = sum(len(page.records) for page in reader)
        except BatchkitError:
            return
        assert (len(first.records) if first else 0) + rest == records

    def test_wrong_settings_are_refused_when_opened(
        self, refused: Sequence[Source], context: OpenContext
    ) -> None:
        """What does not fit is said in one line before anything is read."""
        for source in refused:
            with pytest.raises(UsageError) as caught:
                source.open(context)
            assert "\n" not in str(caught.value)
