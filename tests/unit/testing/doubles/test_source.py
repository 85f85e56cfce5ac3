"""The memory source misbehaves when, and only when, it is told to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airflow_batchkit.engine.exceptions import TransientError, UsageError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.engine.types import Sizing, Total
from airflow_batchkit.testing.doubles import MemorySource, NoConnections, made_up_records

SIZING = Sizing(batch_records=None, batch_bytes=1024)


def context(start_at: str | None = None) -> OpenContext:
    """Make what the source is opened with."""
    return OpenContext(
        connections=NoConnections(),
        timeouts=Timeouts(),
        now=datetime(2026, 1, 1, tzinfo=UTC),
        start_at=start_at,
    )


def test_page_fails_once_and_is_read_again_by_the_next_leg() -> None:
    """A failure at page 2 hits the second page that is asked for, whichever leg asks, and not the third."""
    source = MemorySource(partitions={"a": made_up_records(25)})
    source.log.script.fail("page:a", TransientError("the source is gone"), at=2)
    reader = iter(source.open(context()).read(0, None, SIZING))
    assert len(next(reader).records) == 10
    with pytest.raises(TransientError, match="gone"):
        next(reader)
    pages = list(source.open(context()).read(0, {"position": 10}, SIZING))
    assert [record.id for page in pages for record in page.records] == [str(n) for n in range(11, 26)]
    assert source.log.reads == [("a", None), ("a", {"position": 10})]


def test_page_can_be_delivered_differently() -> None:
    """One page is changed as the test says: a broken source for tests of what must notice it."""
    source = MemorySource(partitions={"a": made_up_records(30)})
    source.log.change_page("a", 2, lambda records: records[::-1])
    pages = list(source.open(context()).read(0, None, SIZING))
    assert [page.records[0].id for page in pages] == ["1", "20", "21"]


def test_windows_may_hold_several_pages() -> None:
    """With style="windows" only the last page of a window has a cursor; the last window may be short."""
    source = MemorySource(
        partitions={"a": made_up_records(25)}, style="windows", page_records=4, window_records=10
    )
    pages = list(source.open(context()).read(0, None, SIZING))
    assert [len(page.records) for page in pages] == [4, 4, 2, 4, 4, 2, 4, 1]
    assert [page.window_end and page.window_end["position"] for page in pages if page.window_end] == [
        10,
        20,
        25,
    ]


def test_total_is_what_the_test_says() -> None:
    """Exact by itself; an estimate, or none, when told so; less for a partial run."""
    records = {"a": made_up_records(3), "b": made_up_records(5)}
    assert MemorySource(partitions=records).open(context()).total == Total(records=8)
    assert MemorySource(partitions=records, total=None).open(context()).total is None
    assert MemorySource(partitions={"a": made_up_records(5)}).open(context("2")).total == Total(records=3)


def test_partial_run_leaves_records_out() -> None:
    """start_at is a number of records; anything else is refused."""
    source = MemorySource(partitions={"a": made_up_records(5)})
    pages = source.open(context("3")).read(0, None, SIZING)
    assert [record.id for page in pages for record in page.records] == ["4", "5"]
    with pytest.raises(UsageError, match="number of records to leave out"):
        source.open(context("monday"))


def test_sizes_are_checked() -> None:
    """A page or a window of no records would never end."""
    with pytest.raises(UsageError, match="must be 1 or more"):
        MemorySource(partitions={}, page_records=0)


def test_repr_does_not_show_the_records() -> None:
    """Of the records only their number is shown."""
    assert "'a': 3" in repr(MemorySource(partitions={"a": made_up_records(3, prefix="secret")}))
    assert "secret" not in repr(MemorySource(partitions={"a": made_up_records(3, prefix="secret")}))
