"""The rate limit, on a clock that the test moves."""

from __future__ import annotations

from itertools import pairwise

import pytest

from airflow_batchkit.engine.policies import RateLimit
from airflow_batchkit.engine.throttle import Throttle
from airflow_batchkit.testing.doubles import FakeClock


def run(limit: RateLimit, *, pages: int, records: int, nbytes: int, work: float = 0.0) -> list[float]:
    """Take pages as the loop does; return when each was taken."""
    clock = FakeClock()
    throttle = Throttle(limit, clock)
    times = []
    for _ in range(pages):
        clock.advance(throttle.delay(records=records, nbytes=nbytes))
        times.append(clock.monotonic())
        clock.advance(work)
    return times


@pytest.mark.parametrize("work", [0.0, 0.02, 0.09])
def test_the_rate_asked_for_is_the_rate_that_comes_out(work: float) -> None:
    """Within one percent over 200 pages, whatever part of the time the work itself takes."""
    times = run(RateLimit(records_per_second=1000), pages=201, records=100, nbytes=1, work=work)

    assert 200 * 100 / (times[-1] - times[0]) == pytest.approx(1000, rel=0.01)


def test_bytes_are_limited_likewise() -> None:
    """The slower of the two limits decides."""
    limit = RateLimit(records_per_second=1_000_000, bytes_per_second=50_000)
    times = run(limit, pages=101, records=10, nbytes=5_000)

    assert 100 * 5_000 / (times[-1] - times[0]) == pytest.approx(50_000, rel=0.01)


def test_what_was_late_is_not_made_up_in_a_burst() -> None:
    """After ten idle seconds one page goes at once, the next waits its turn."""
    clock = FakeClock()
    throttle = Throttle(RateLimit(records_per_second=10), clock)
    throttle.delay(records=10, nbytes=1)
    clock.advance(10)

    assert throttle.delay(records=10, nbytes=1) == 0.0
    assert throttle.delay(records=10, nbytes=1) == pytest.approx(1.0)


def test_no_second_holds_more_than_two_pages_of_a_second() -> None:
    """A page is never more than one second's worth: in any second at most that and the one before end."""
    limit = RateLimit(records_per_second=100)
    page = Throttle(limit, FakeClock()).page_records
    assert page == 100
    times = run(limit, pages=50, records=page, nbytes=1)

    assert min(later - earlier for earlier, later in pairwise(times)) >= 0.999


def test_without_a_limit_nothing_waits() -> None:
    """And pages may be as large as they like."""
    throttle = Throttle(None, FakeClock())

    assert [throttle.delay(records=10**6, nbytes=10**9) for _ in range(3)] == [0.0] * 3
    assert throttle.page_records is None
    assert throttle.page_bytes is None


@pytest.mark.parametrize(("rate", "page"), [(0.01, 1), (1, 1), (2.9, 2), (5000, 5000)])
def test_a_page_is_one_seconds_worth_and_at_least_one(rate: float, page: int) -> None:
    """For records and for bytes."""
    throttle = Throttle(RateLimit(records_per_second=rate, bytes_per_second=rate), FakeClock())

    assert (throttle.page_records, throttle.page_bytes) == (page, page)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_jump_of_the_wall_clock_is_no_time(jump: float) -> None:
    """An hour forward allows no burst, an hour back no endless wait."""
    clock = FakeClock()
    throttle = Throttle(RateLimit(records_per_second=10), clock)
    throttle.delay(records=10, nbytes=1)
    clock.jump(jump)
    assert throttle.delay(records=10, nbytes=1) == 1.0
    clock.advance(1.0)
    assert throttle.delay(records=10, nbytes=1) == 1.0
