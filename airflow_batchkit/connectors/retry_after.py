"""Reads ``Retry-After``, which is a number of seconds or a date (RFC 9110, 10.2.3)."""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a server asks to wait, never less than 0; None where it says nothing readable.

    A date is compared with this machine's clock; ``PushbackError.retry_after`` bounds what a wrong clock, or
    a server that asks for a year, can do.

    :param header: as it came.
    """
    text = (header or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        seconds = _until(text)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _until(date: str) -> float:
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, OverflowError):
        return math.nan
