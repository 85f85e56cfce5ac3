"""Times and durations as people on call read them."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from airflow_batchkit.watching.words import clock, lasting


def test_an_instant_is_told_in_utc() -> None:
    """Whatever the zone, everybody reads the same."""
    assert clock(datetime(2026, 7, 1, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))) == "2026-07-01 00:30:00 UTC"


@pytest.mark.parametrize(
    ("duration", "told"),
    [
        (timedelta(seconds=59.4), "59 s"),
        (timedelta(seconds=-5), "0 s"),
        (timedelta(minutes=1, seconds=30), "1 min"),
        (timedelta(hours=3, minutes=20, seconds=59), "3 h 20 min"),
        (timedelta(hours=26), "1 d 2 h"),
        (timedelta(days=2, minutes=7), "2 d 7 min"),
    ],
)
def test_a_duration_is_told_in_two_units(duration: timedelta, told: str) -> None:
    """What is smaller is left out."""
    assert lasting(duration) == told
