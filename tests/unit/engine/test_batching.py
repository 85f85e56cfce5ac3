"""Cutting pages into batches, and the lane that knows which of them count."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings, strategies as st
from typing_extensions import override

from airflow_batchkit.engine.batching import Batch, Lane, Limits
from airflow_batchkit.engine.checkpoint import PartitionProgress
from airflow_batchkit.engine.policies import BatchPolicy
from airflow_batchkit.engine.sink import BatchKey, BatchWriter
from airflow_batchkit.engine.transform import TransformResult
from airflow_batchkit.engine.types import Page, Record, WriteResult, record_size
from airflow_batchkit.testing.doubles import MemorySink


class Nowhere(BatchWriter):
    """Takes records and forgets them."""

    @override
    def add(self, records: Sequence[Record]) -> None:
        """Forget them."""

    @override
    def write(self) -> WriteResult:
        return WriteResult()


def record(number: int, size: int = 100) -> Record:
    """Make a record that takes exactly so many bytes in a batch (25 or more)."""
    made = Record(f"{number:03}", b"")
    made.body = b'"' + b"x" * (size - record_size(made) - 2) + b'"'
    return made


def page_of(records: list[Record], *, resumable: bool = False) -> Page:
    """Make a page that says of its size what its records take."""
    page = Page(records, sum(map(record_size, records)))
    if resumable:
        page.cursor_at = lambda index: {"id": records[index].id}
    return page


def feed(lane: Lane, page: Page, limits: Limits) -> list[Batch]:
    """Do with a page what the loop does; return the batches that were closed."""
    closed = []
    for part in lane.cut(page, limits):
        if part.records:
            if lane.draft is None:
                lane.draft = Batch(lane.next_key(), Nowhere())
            lane.draft.take(part, TransformResult(produced=part.records, transformed=len(part.records)))
        if part.fills:
            batch = lane.close_draft()
            assert batch is not None
            closed.append(batch)
    return closed


def sizes(limits: Limits, *pages: Sequence[int]) -> list[int]:
    """Cut pages of records of these sizes; return how many records each batch got, the last one too."""
    lane = Lane(0, None, reader=1)
    closed: list[Batch] = []
    for page in pages:
        closed += feed(lane, page_of([record(number, size) for number, size in enumerate(page)]), limits)
    last = lane.close_draft()
    return [batch.records for batch in (*closed, *([last] if last else []))]


MANY = 10**9


@pytest.mark.parametrize(
    ("limits", "pages", "expected"),
    [
        pytest.param(Limits(None, MANY), [[]], [], id="nothing"),
        pytest.param(Limits(10, MANY), [[100]], [1], id="one record"),
        pytest.param(Limits(10, MANY), [[100] * 10], [10], id="exactly one batch"),
        pytest.param(Limits(10, MANY), [[100] * 11], [10, 1], id="one more"),
        pytest.param(Limits(10, MANY), [[100] * 30], [10, 10, 10], id="a page of three batches"),
        pytest.param(Limits(10, MANY), [[100] * 4] * 6, [10, 10, 4], id="pages smaller than a batch"),
        pytest.param(Limits(10, MANY), [[100] * 10] * 3, [10, 10, 10], id="pages as large as a batch"),
        pytest.param(Limits(1, MANY), [[100] * 3], [1, 1, 1], id="batches of one"),
        pytest.param(Limits(None, 1000), [[100] * 30], [10, 10, 10], id="bytes, exact multiples"),
        pytest.param(Limits(None, 999), [[100] * 10], [9, 1], id="asked before it is added"),
        pytest.param(Limits(None, 1000), [[100] * 7] * 3, [10, 10, 1], id="bytes across pages"),
        pytest.param(Limits(None, 500), [[100, 2000, 100]], [1, 1, 1], id="too large, alone"),
        pytest.param(Limits(None, 500), [[2000, 100, 100]], [1, 2], id="too large, first"),
        pytest.param(Limits(None, 500), [[100], [2000], [100]], [1, 1, 1], id="too large, in a page alone"),
        pytest.param(Limits(None, 500), [[2000], [2000]], [1, 1], id="too large, twice"),
        pytest.param(Limits(4, 500), [[100] * 4, [200] * 4, [100] * 3], [4, 2, 3, 2], id="both limits"),
        pytest.param(Limits(10, MANY), [[100] * 5, [], [100] * 5], [10], id="an empty page between"),
    ],
)
def test_where_batches_end(limits: Limits, pages: list[list[int]], expected: list[int]) -> None:
    """Records per batch, for pages of records of these sizes."""
    assert sizes(limits, *pages) == expected


@settings(max_examples=200, deadline=None, database=None)
@given(
    pages=st.lists(st.lists(st.integers(25, 400), max_size=12), max_size=8),
    max_records=st.one_of(st.none(), st.integers(1, 9)),
    max_bytes=st.integers(1, 900),
)
def test_any_cut_keeps_every_record_in_order_within_the_limits(
    pages: list[list[int]], max_records: int | None, max_bytes: int
) -> None:
    """No record lost, doubled or out of order; no batch over a limit unless it holds one record alone."""
    lane = Lane(0, None, reader=1)
    closed: list[Batch | None] = []
    given_records: list[Record] = []
    taken: list[Record] = []
    for numbers in pages:
        page = page_of([record(len(given_records) + at, size) for at, size in enumerate(numbers)])
        given_records += page.records
        for part in lane.cut(page, Limits(max_records, max_bytes)):
            taken += part.records
            if part.records:
                lane.draft = lane.draft or Batch(lane.next_key(), Nowhere())
                lane.draft.take(part, TransformResult())
            if part.fills:
                closed.append(lane.close_draft())
    closed += [batch for batch in [lane.close_draft()] if batch]

    assert taken == given_records
    assert sum(batch.counts.bytes_read for batch in closed if batch) == sum(map(record_size, taken))
    for batch in closed:
        assert batch is not None
        assert max_records is None or batch.records <= max_records
        assert batch.nbytes <= max_bytes or batch.records == 1


def test_a_batch_that_is_full_is_closed_at_once() -> None:
    """It does not wait for the next page, which may take long to come."""
    lane = Lane(0, None, reader=1)

    assert [batch.records for batch in feed(lane, page_of([record(1), record(2)]), Limits(2, MANY))] == [2]
    assert lane.draft is None


@pytest.mark.parametrize("pages", [[[100]], [[50, 50]], [[50], [50]]])
def test_a_batch_that_is_full_by_its_bytes_is_closed_at_once(pages: list[list[int]]) -> None:
    """Reached exactly, by one record or several, in one page or two: it does not wait for the next page."""
    lane = Lane(0, None, reader=1)
    closed = [
        feed(lane, page_of([record(number, size) for number, size in enumerate(page)]), Limits(MANY, 100))
        for page in pages
    ]
    assert [len(batches) for batches in closed] == [0] * (len(pages) - 1) + [1]
    assert lane.draft is None


def test_limits_come_from_the_policy_and_then_from_the_sink() -> None:
    """What the policy leaves open, the sink decides."""
    sink = MemorySink(default_batch_bytes=77, default_batch_records=5)

    assert Limits.of(BatchPolicy(), sink) == Limits(5, 77)
    assert Limits.of(BatchPolicy(max_records=3, max_bytes=9), sink) == Limits(3, 9)
    assert Limits.of(BatchPolicy(), MemorySink(default_batch_bytes=1)) == Limits(None, 1)


def closed_batch(lane: Lane) -> Batch:
    """Put one batch of one record into the lane's open window."""
    lane.draft = Batch(lane.next_key(), Nowhere())
    batch = lane.close_draft()
    assert batch is not None
    return batch


def test_the_cursor_moves_over_the_longest_durable_prefix() -> None:
    """Window 2 is durable before window 1: nothing moves until window 1 is."""
    lane = Lane(3, {"p": 0}, reader=1)
    first, second = closed_batch(lane), closed_batch(lane)
    lane.end_window({"p": 10})
    third = closed_batch(lane)
    lane.end_window({"p": 20})

    third.durable = first.durable = True
    assert lane.commit() is None
    assert lane.progress == PartitionProgress(3, {"p": 0}, 0)
    second.durable = True
    assert lane.commit() == [first, second, third]
    assert lane.progress == PartitionProgress(3, {"p": 20}, 3)
    assert lane.commit() is None


def test_a_window_without_batches_moves_the_cursor() -> None:
    """A stretch of the source in which nothing matches is passed all the same."""
    lane = Lane(0, None, reader=1)
    lane.end_window({"p": 10})

    assert lane.commit() == []
    assert lane.cursor == {"p": 10}


def test_an_open_window_is_not_committed_however_durable() -> None:
    """Its end is not known yet: a new leg would read it from its start."""
    lane = Lane(0, {"p": 5}, reader=1)
    closed_batch(lane).durable = True

    assert lane.commit() is None
    assert not lane.in_clean_window
    assert lane.read_cursor == {"p": 5}


def test_the_last_window_ends_with_its_partition() -> None:
    """A source need not say so; the partition is finished when its last batch is durable."""
    lane = Lane(0, None, reader=1)
    batch = closed_batch(lane)
    lane.end()

    assert (lane.commit(), lane.finished) == (None, False)
    batch.durable = True
    assert (lane.commit(), lane.finished) == ([batch], True)


def test_an_empty_partition_is_finished_at_once() -> None:
    """It has no window to wait for."""
    lane = Lane(0, None, reader=1)
    lane.end()

    assert lane.finished


def test_a_source_that_can_resume_anywhere_gets_a_window_per_batch() -> None:
    """The cursor after the batch's last record, also when the batch spans pages."""
    lane = Lane(0, None, reader=1)
    records = [record(number) for number in range(7)]
    feed(lane, page_of(records[:4], resumable=True), Limits(3, MANY))
    feed(lane, page_of(records[4:], resumable=True), Limits(3, MANY))
    last = lane.close_draft()
    lane.end()

    for window in lane._windows:
        window.batches[0].durable = True
    ends = [window.end for window in lane._windows]
    assert ends == [{"id": "002"}, {"id": "005"}, {"id": "006"}]
    assert lane.commit() is not None
    assert last is not None
    assert last.key == BatchKey(partition=0, number=3)


def test_a_page_of_which_nothing_fits_leaves_the_window_where_it_was() -> None:
    """The batch that is full ends after its own last record, not after one that goes into the next batch."""
    lane = Lane(0, None, reader=1)
    feed(lane, page_of([record(0)], resumable=True), Limits(MANY, 150))
    (closed,) = feed(lane, page_of([record(1), record(2, 30)], resumable=True), Limits(MANY, 150))
    closed.durable = True
    lane.commit()
    assert lane.cursor == {"id": "000"}


def test_forgetting_a_window_keeps_what_is_closed() -> None:
    """Only the draft is dropped; its number is not used again in this leg."""
    lane = Lane(0, None, reader=1)
    feed(lane, page_of([record(number) for number in range(4)], resumable=True), Limits(3, MANY))
    lane.forget_window(reader=2)

    assert lane.draft is None
    assert lane.reader == 2
    assert lane.read_cursor == {"id": "002"}
    assert lane.next_key().number == 3
    assert lane.close_draft() is None
    assert lane.in_clean_window
    assert lane.read_cursor == {"id": "002"}
