"""Retry-After as servers, and broken servers, send it."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from airflow_batchkit.connectors.retry_after import retry_after


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        (" 12 ", 12.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("1e999", None),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
        ("Wed, 99 Foo 2015 07:28:00 GMT", None),
    ],
)
def test_what_servers_send_becomes_seconds_or_nothing(header: str | None, seconds: float | None) -> None:
    """Numbers are kept, what is below zero is zero, and nonsense is nothing."""
    assert retry_after(header) == seconds


def test_a_date_in_the_future_is_waited_for() -> None:
    """A date counts from now, by this machine's clock."""
    assert retry_after(formatdate(time.time() + 120, usegmt=True)) == pytest.approx(120, abs=5)
