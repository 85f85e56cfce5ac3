"""Progress told honestly: what is unknown, estimated, or wrong is said so."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from airflow_batchkit.engine.progress import Meter, Progress, clock_text, eta
from airflow_batchkit.engine.types import Total

UNKNOWN = {"batches_total": None, "eta_seconds": None, "dead_lettered": 0}


def progress(**changes: Any) -> Progress:
    """Make the moment that DESIGN.md's log line shows."""
    settings: dict[str, Any] = {
        "batches": 23,
        "batches_total": 50,
        "read": 230_000,
        "total": Total(records=500_000),
        "records_per_second": 38_211.4,
        "dead_lettered": 1,
        "eta_seconds": 7.07,
        "active_seconds": 6.0,
        "throttled_seconds": 0.0,
        "bytes_read": 10**6,
        "cursor": "0: 5",
        **changes,
    }
    return Progress(**settings)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            UNKNOWN | {"unit": "object", "batches_total": 63},
            "object 23/63 · 230,000/500,000 records (46%) · 38,211 records/s",
        ),
        (
            {},
            "batch 23/50 · 230,000/500,000 records (46%) · 38,211 records/s · 1 dead-lettered · ETA 0:07",
        ),
        (
            {"total": None, "batches_total": None, "eta_seconds": None, "dead_lettered": 0},
            "batch 23 · 230,000 records (total unknown) · 38,211 records/s",
        ),
        (
            {"total": Total(records=500_000, exact=False), "dead_lettered": 0},
            "batch 23/50 · 230,000/~500,000 records (46%) · 38,211 records/s · ETA 0:07",
        ),
        (
            {"total": Total(records=200_000), **UNKNOWN},
            "batch 23 · 230,000 records (more than the 200,000 expected) · 38,211 records/s",
        ),
        (
            {"total": Total(records=200_000, exact=False), **UNKNOWN},
            "batch 23 · 230,000 records (more than the ~200,000 expected) · 38,211 records/s",
        ),
        (
            {"throttled_seconds": 75.2, "dead_lettered": 1234},
            (
                "batch 23/50 · 230,000/500,000 records (46%) · 38,211 records/s · 1,234 dead-lettered · "
                "throttled 1:15 · ETA 0:07"
            ),
        ),
        (
            {"read": 0, "batches": 0, "total": Total(records=0), "dead_lettered": 0, "eta_seconds": None},
            "batch 0/50 · 0/0 records (100%) · 38,211 records/s",
        ),
        (
            {"read": 499_999, "eta_seconds": 12_345, "dead_lettered": 0},
            "batch 23/50 · 499,999/500,000 records (99%) · 38,211 records/s · ETA 3:25:45",
        ),
    ],
)
def test_the_line(changes: dict[str, Any], line: str) -> None:
    """A known total, an unknown, an estimate, one that proved wrong, throttled, empty, nearly done."""
    assert progress(**changes).line() == line


def test_to_dict_is_json_with_the_line_in_it() -> None:
    """For XCom and the state store."""
    made = progress().to_dict()

    assert made["total"] == 500_000
    assert made["line"].startswith("batch 23/50")
    assert msgspec.json.decode(msgspec.json.encode(made)) == made
    assert progress(total=None).to_dict()["total"] is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0:00"), (0.4, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (11_565, "3:12:45")],
)
def test_durations(seconds: float, text: str) -> None:
    """Minutes and seconds, hours only when there are any."""
    assert clock_text(seconds) == text


@pytest.mark.parametrize(
    ("total", "read", "rate", "seconds"),
    [
        (None, 10, 1.0, None),
        (Total(records=100), 0, 1.0, None),
        (Total(records=100), 10, 0.0, None),
        (Total(records=100), 101, 1.0, None),
        (Total(records=100_000), 99, 1.0, None),
        (Total(records=100_000), 100, 1.0, 99_900.0),
        (Total(records=100), 60, 4.0, 10.0),
        (Total(records=100, exact=False), 100, 4.0, 0.0),
        (Total(records=0), 0, 1.0, None),
    ],
)
def test_an_eta_only_where_one_can_know(
    total: Total | None, read: int, rate: float, seconds: float | None
) -> None:
    """No total, no rate, under 0.1 %, more than expected: no ETA."""
    assert eta(total, read, rate) == seconds


def test_the_rate_is_that_of_late() -> None:
    """A fast beginning does not colour it after half a minute; a resumed run does not begin with a leap."""
    meter = Meter(already_read=1_000_000)
    assert meter.rate(1.0, 1_001_000) == pytest.approx(1000)
    for second in range(2, 100):
        rate = meter.rate(float(second), 1_001_000 + (second - 1) * 10)

    assert rate == pytest.approx(10)
    assert Meter(0).rate(0.0, 5) == 0.0


def test_the_meter_does_not_grow() -> None:
    """However many windows end in half a minute."""
    meter = Meter(0)
    for number in range(5000):
        meter.rate(number / 1000, number)

    assert len(meter._moments) <= 512
