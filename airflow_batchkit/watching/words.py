"""Times and durations as people on call read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def clock(instant: datetime) -> str:
    """Return an instant as ``2026-03-01 02:00:00 UTC``.

    :param instant: with a time zone.
    """
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def lasting(duration: timedelta) -> str:
    """Return a duration in its two largest units: ``3 h 20 min``."""
    seconds = max(0, round(duration.total_seconds()))
    if seconds < _MINUTE:
        return f"{seconds} s"
    units = ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min"))
    parts: list[str] = []
    for size, unit in units:
        amount, seconds = divmod(seconds, size)
        if amount:
            parts.append(f"{amount} {unit}")
    return " ".join(parts[:2])
