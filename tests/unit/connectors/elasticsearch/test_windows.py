"""Sizes of pages and windows, as pure functions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from airflow_batchkit.connectors.elasticsearch.windows import PageSizer, WindowSizer
from airflow_batchkit.engine.types import Sizing

MIB = 1024 * 1024


def sizing(**settings: Any) -> Sizing:
    """Return the sizes of a usual export, with changes."""
    return Sizing(**{"batch_records": None, "batch_bytes": 32 * MIB, **settings})


def window(sizer: WindowSizer, *, density: float, record_bytes: int, rate: float = 200_000) -> int:
    """Read one window of a made-up shard; return how many records it held."""
    records = int(sizer.width * density)
    sizer.learn(
        width=sizer.width,
        records=records,
        nbytes=records * record_bytes,
        read_seconds=records / rate,
        seconds=records / rate,
    )
    return records


@pytest.mark.parametrize(
    ("record_bytes", "expected"), [(400, 7_864), (2_400, 1_310), (20_000, 157), (5 * MIB, 1)]
)
def test_pages_come_to_hold_about_three_mebibytes(record_bytes: int, expected: int) -> None:
    """Within a few pages the number of records fits the size of the documents."""
    sizer = PageSizer(sizing(), max_records=10_000)
    for _ in range(6):
        sizer.learn(records=sizer.records, nbytes=sizer.records * record_bytes)
    assert sizer.records == expected


def test_pages_start_small_and_grow_step_by_step() -> None:
    """A first page is small, and the next at most twice as large, so that a surprise stays bounded."""
    sizer = PageSizer(sizing(), max_records=10_000)
    assert sizer.records == 500
    sizer.learn(records=500, nbytes=500 * 100)
    assert sizer.records == 1000


def test_what_the_index_takes_on_disk_limits_the_first_page() -> None:
    """An index of huge documents is not asked for hundreds of them at once."""
    assert PageSizer(sizing(), max_records=10_000, bytes_on_disk=5 * MIB).records == 1
    assert PageSizer(sizing(), max_records=10_000, bytes_on_disk=100).records == 500


def test_an_answer_that_was_given_up_makes_pages_smaller_until_one_record_is_left() -> None:
    """A single record has no limit: it has to be read however large it is."""
    sizer = PageSizer(sizing(), max_records=10_000)
    seen = []
    while sizer.max_bytes is not None:
        seen.append(sizer.records)
        sizer.shrink()
    assert seen == [500, 62, 7]
    assert sizer.records == 1


@given(
    page_records=st.integers(1, 10_000),
    max_records=st.integers(1, 10_000),
    pages=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 100 * MIB)), max_size=20),
)
def test_pages_never_exceed_their_limits(
    page_records: int, max_records: int, pages: list[tuple[int, int]]
) -> None:
    """Whatever was seen, a page asks for one record at least and never for more than allowed."""
    sizer = PageSizer(sizing(page_records=page_records), max_records=max_records)
    for records, nbytes in pages:
        sizer.learn(records=records, nbytes=nbytes)
        assert 1 <= sizer.records <= min(page_records, max_records)


@pytest.mark.parametrize("density", [1.0, 0.3, 0.01, 0.0001])
@pytest.mark.parametrize("record_bytes", [400, 20_000])
def test_windows_come_to_hold_about_one_batch(density: float, record_bytes: int) -> None:
    """Whatever part of the documents matches, after some windows each holds about one batch of bytes."""
    sizer = WindowSizer(sizing(), patience=100)
    for _ in range(12):
        records = window(sizer, density=density, record_bytes=record_bytes)
    assert 0.8 * 32 * MIB <= records * record_bytes <= 1.05 * 32 * MIB


def test_a_limit_in_records_is_kept() -> None:
    """No window of a dense shard holds more records than a batch, from the first one on."""
    sizer = WindowSizer(sizing(batch_records=1000), patience=100)
    assert {window(sizer, density=1, record_bytes=400) for _ in range(10)} == {1000}


def test_a_slow_server_gets_smaller_windows() -> None:
    """A window should be read in about two seconds, whatever its size would be."""
    sizer = WindowSizer(sizing(), patience=100)
    for _ in range(10):
        records = window(sizer, density=1, record_bytes=400, rate=1000)
    assert records == pytest.approx(2000, rel=0.05)


def test_a_slow_consumer_gets_windows_that_end_before_the_snapshot_does() -> None:
    """A window that waits for a throttle must be through while the point in time still lives."""
    sizer = WindowSizer(sizing(), patience=100)
    for _ in range(10):
        records = sizer.width
        sizer.learn(
            width=records, records=records, nbytes=records * 400, read_seconds=0.01, seconds=records / 10
        )
    assert records == pytest.approx(1000, rel=0.05)


def test_empty_stretches_are_crossed_faster_and_faster() -> None:
    """Windows without a match grow, so that millions of numbers take a few of them."""
    sizer = WindowSizer(sizing(), patience=100)
    widths = []
    for _ in range(9):
        widths.append(sizer.width)
        window(sizer, density=0, record_bytes=400)
    assert sum(widths) > 1_000_000_000


def test_a_window_that_holds_far_too_much_is_narrowed() -> None:
    """After a sparse stretch a wide window over a dense one shrinks to about a batch before it is read."""
    sizer = WindowSizer(sizing(batch_records=1000), patience=100)
    for _ in range(8):
        window(sizer, density=0.0001, record_bytes=400)
    wide = sizer.width
    assert wide > 1_000_000
    assert sizer.narrow(width=wide, records=wide // 2)
    assert 0 < sizer.width <= 4000
    assert not sizer.narrow(width=sizer.width, records=2000)
    assert not sizer.narrow(width=1, records=1)


def test_pages_follow_wishes_that_change() -> None:
    """After a pushback pages are half as large from the first answer on, and grow back with their wishes."""
    wishes = sizing(page_bytes=300_000, page_records=1000)
    sizer = PageSizer(wishes, max_records=10_000)

    def page(record_bytes: int) -> int:
        sizer.learn(records=sizer.records, nbytes=sizer.records * record_bytes)
        return sizer.records

    assert page(1000) == 300
    wishes.page_bytes, wishes.page_records = 150_000, 100
    assert page(1000) == 100
    wishes.page_records = 1000
    assert page(1000) == 150
    wishes.page_bytes = 300_000
    assert page(1000) == 300
