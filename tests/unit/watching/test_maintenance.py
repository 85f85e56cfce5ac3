"""Maintenance windows, also where clocks are put forward and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.watching.maintenance import parse_window


def covered(text: str, day: datetime) -> list[str]:
    """Return the first and the last quarter of an hour (UTC) inside of each window within two days."""
    window = parse_window(text)
    quarters = [day + timedelta(minutes=15 * n) for n in range(4 * 48)]
    inside = [quarter for quarter in quarters if window.covers(quarter)]
    edges = [
        quarter
        for quarter in inside
        if quarter - timedelta(minutes=15) not in inside or quarter + timedelta(minutes=15) not in inside
    ]
    return [edge.strftime("%d %H:%M") for edge in edges]


def test_a_window_on_one_day_of_the_week() -> None:
    """Sunday from two to four in Berlin is one to three in winter; the end is outside."""
    assert covered("Sun 02:00-04:00 Europe/Berlin", datetime(2026, 1, 17, tzinfo=UTC)) == [
        "18 01:00",
        "18 02:45",
    ]


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    """Friday night ends on Saturday morning; a Saturday's night is not meant."""
    found = covered("Fri 22:00-05:00 UTC", datetime(2026, 1, 16, tzinfo=UTC))

    assert found == ["16 22:00", "17 04:45"]


def test_a_range_of_days_may_go_over_the_weekend() -> None:
    """Sat-Mon are three days, Mon-Fri five, a list is what it says."""
    days = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    monday = datetime(2026, 1, 12, 12, tzinfo=UTC)

    def on(text: str) -> list[str]:
        window = parse_window(f"{text} 11:00-13:00 UTC")
        return [days[n] for n in range(7) if window.covers(monday + timedelta(days=n))]

    assert on("Sat-Mon") == ["mon", "sat", "sun"]
    assert on("mon-fri") == ["mon", "tue", "wed", "thu", "fri"]
    assert on("Tue,Sun") == ["tue", "sun"]
    assert on("2026-01-14") == ["wed"]


def test_a_window_without_days_is_daily() -> None:
    """Every day, also the next."""
    assert covered("02:00-02:30 UTC", datetime(2026, 1, 16, tzinfo=UTC)) == [
        *("16 02:00", "16 02:15"),
        *("17 02:00", "17 02:15"),
    ]


def test_the_clock_is_put_forward_within_a_window() -> None:
    """On 29 March 2026 Berlin has no time between 02:00 and 03:00: what lasts two hours lasts one."""
    found = covered("Sun 01:30-03:30 Europe/Berlin", datetime(2026, 3, 28, tzinfo=UTC))

    assert found == ["29 00:30", "29 01:15"]


def test_the_clock_is_put_back_within_a_window() -> None:
    """On 25 October 2026 Berlin has the hour from 02:00 twice: what lasts two hours lasts three."""
    found = covered("Sun 01:30-03:30 Europe/Berlin", datetime(2026, 10, 24, tzinfo=UTC))

    assert found == ["24 23:30", "25 02:15"]


def test_an_end_in_the_hour_that_comes_twice_is_the_later_one() -> None:
    """A window until 02:30 goes on until the second 02:30."""
    found = covered("Sun 01:00-02:30 Europe/Berlin", datetime(2026, 10, 24, tzinfo=UTC))

    assert found == ["24 23:00", "25 01:15"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sun 02:00-04:00",
        "Son 02:00-04:00 Europe/Berlin",
        "02:00-25:00 UTC",
        "Sun 2-4 UTC",
        "Sun 02:00-04:00 Europe/Bärlin",
        "Sun 02:00-04:00 ../etc/passwd",
        "Mon-Wed-Fri 02:00-04:00 UTC",
        "2026-02-30 02:00-04:00 UTC",
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    """The message repeats what was written and shows how to write it."""
    with pytest.raises(UsageError, match="write for example 'Sun 02:00-04:00 Europe/Berlin'"):
        parse_window(text)
