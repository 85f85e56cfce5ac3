"""Date math with now becomes one instant; tests/integration compares it with a real server's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, strategies as st

from airflow_batchkit.connectors.elasticsearch.date_math import resolve, uses_now
from airflow_batchkit.engine.exceptions import UsageError

NOW = datetime(2024, 2, 29, 23, 15, 30, 123_456, tzinfo=UTC)
UNITS = "yMwdhHms"
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("+-"), st.integers(0, 400), st.sampled_from(UNITS)),
        st.tuples(st.just("/"), st.just(""), st.sampled_from(UNITS)),
    ),
    max_size=4,
).map(lambda found: "now" + "".join(f"{operator}{number}{unit}" for operator, number, unit in found))
instants = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - made aware


@pytest.mark.parametrize(
    ("text", "down", "up"),
    [
        ("now", "2024-02-29T23:15:30.123Z", "2024-02-29T23:15:30.123Z"),
        ("now-1d", "2024-02-28T23:15:30.123Z", "2024-02-28T23:15:30.123Z"),
        ("now+d", "2024-03-01T23:15:30.123Z", "2024-03-01T23:15:30.123Z"),
        ("now-1y", "2023-02-28T23:15:30.123Z", "2023-02-28T23:15:30.123Z"),
        ("now-1M/M", "2024-01-01T00:00:00.000Z", "2024-01-31T23:59:59.999Z"),
        ("now/d", "2024-02-29T00:00:00.000Z", "2024-02-29T23:59:59.999Z"),
        ("now/w", "2024-02-26T00:00:00.000Z", "2024-03-03T23:59:59.999Z"),
        ("now/y", "2024-01-01T00:00:00.000Z", "2024-12-31T23:59:59.999Z"),
        ("now/h", "2024-02-29T23:00:00.000Z", "2024-02-29T23:59:59.999Z"),
        ("now/m+10s", "2024-02-29T23:15:10.000Z", "2024-02-29T23:16:09.999Z"),
        ("now/s", "2024-02-29T23:15:30.000Z", "2024-02-29T23:15:30.999Z"),
    ],
)
def test_units_and_rounding(text: str, down: str, up: str) -> None:
    """Steps and roundings follow the calendar; rounding up goes to the unit's last millisecond."""
    assert resolve(text, NOW, round_up=False) == down
    assert resolve(text, NOW, round_up=True) == up


def test_days_begin_where_the_time_zone_says() -> None:
    """Rounding to a day uses the query's zone, whatever the zone of the run's instant."""
    local = NOW.astimezone(timezone(timedelta(hours=-8)))
    assert resolve("now/d", local, round_up=False, time_zone="+02:00") == "2024-02-29T22:00:00.000Z"
    assert resolve("now/d", local, round_up=False, time_zone="Asia/Tokyo") == "2024-02-29T15:00:00.000Z"
    assert resolve("now/d", local, round_up=False) == "2024-02-29T00:00:00.000Z"


@given(text=steps, now=instants, round_up=st.booleans())
def test_the_result_is_an_instant_of_whole_milliseconds(text: str, now: datetime, round_up: bool) -> None:
    """Any date math gives ISO 8601 in UTC, and rounding up never comes before rounding down."""
    result = resolve(text, now, round_up=round_up)
    moment = datetime.fromisoformat(result)
    assert result.endswith("Z")
    assert moment.microsecond % 1000 == 0
    assert resolve(text, now, round_up=False) <= resolve(text, now, round_up=True)


@given(now=instants, unit=st.sampled_from(UNITS))
def test_an_instant_lies_within_its_own_unit(now: datetime, unit: str) -> None:
    """Down and up bound the unit that the instant lies in, and rounding twice is rounding once."""
    down, exact, up = (
        datetime.fromisoformat(resolve(text, now, round_up=round_up))
        for text, round_up in ((f"now/{unit}", False), ("now", False), (f"now/{unit}", True))
    )
    assert down <= exact <= up
    assert resolve(f"now/{unit}/{unit}", now, round_up=False) == resolve(f"now/{unit}", now, round_up=False)


@pytest.mark.parametrize(
    "text", ["", "nowhere", "now ", "now-1", "now-1x", "now/2d", "2024-01-01||-1d", "yesterday"]
)
def test_other_text_is_no_date_math_with_now(text: str) -> None:
    """Only whole date math that begins with now is resolved."""
    assert not uses_now(text)
    with pytest.raises(UsageError, match="not date math"):
        resolve(text, NOW, round_up=False)


@pytest.mark.parametrize("text", ["now-9999y", "now+9999y", "now-99999999999d"])
def test_instants_beyond_the_calendar_are_refused(text: str) -> None:
    """A step out of the years that exist is one clear line."""
    with pytest.raises(UsageError, match="years 1 to 9999"):
        resolve(text, NOW, round_up=False)


def test_an_unknown_zone_is_refused() -> None:
    """The message says what a zone may look like."""
    with pytest.raises(UsageError, match=r"such as \+02:00"):
        resolve("now/d", NOW, round_up=False, time_zone="Middle/Earth")
