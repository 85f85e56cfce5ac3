"""Maintenance windows, as people write them: ``Sun 02:00-04:00 Europe/Berlin``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_batchkit.engine.exceptions import UsageError

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = re.compile(
    r"(?:(?P<days>[a-z]{3}(?:[-,][a-z]{3})*|\d{4}-\d\d-\d\d)\s+)?"
    r"(?P<begin>\d\d:\d\d)-(?P<end>\d\d:\d\d)\s+(?P<zone>\S+)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceWindow:
    """A stretch of local time that comes back every day, on some days of the week, or once.

    :param days: of the week, 0 for Monday; the days on which it begins.
    :param on: the one date on which it begins; None where it comes back.
    :param begin: local time.
    :param end: local time; not after ``begin`` means on the next day.
    :param zone: whose clock it is; where that is put forward or back, the window is shorter or longer.
    """

    days: frozenset[int]
    on: date | None
    begin: time
    end: time
    zone: ZoneInfo

    def covers(self, instant: datetime) -> bool:
        """Say whether an instant lies in the window; its end does not.

        :param instant: with a time zone.
        """
        today = instant.astimezone(self.zone).date()
        return any(
            self._begins_on(day) and self._instant(day, self.begin) <= instant < self._ending(day)
            for day in (today, today - timedelta(days=1))
        )

    def _begins_on(self, day: date) -> bool:
        return day == self.on if self.on is not None else day.weekday() in self.days

    def _ending(self, day: date) -> datetime:
        last = day if self.end > self.begin else day + timedelta(days=1)
        # An hour that comes twice belongs to the window whole.
        return self._instant(last, self.end, fold=1)

    def _instant(self, day: date, at: time, *, fold: int = 0) -> datetime:
        # In UTC: two times of one zone are compared by the clock on the wall, whatever happens between them.
        return datetime.combine(day, at, self.zone).replace(fold=fold).astimezone(UTC)


def parse_window(text: str) -> MaintenanceWindow:
    """Read a window.

    :param text: ``02:00-04:00 UTC`` (every day), ``Sun 02:00-04:00 Europe/Berlin``, ``Mon-Fri …``,
        ``Sat,Sun …``, or ``2026-12-24 22:00-06:00 Europe/Berlin`` (once, into the next day).
    :raises UsageError: it cannot be read.
    """
    try:
        return _window(text)
    except (ValueError, ZoneInfoNotFoundError, OSError):
        message = (
            f"maintenance window {text!r}: write for example 'Sun 02:00-04:00 Europe/Berlin', "
            "'Mon-Fri 22:00-05:00 UTC' or '2026-12-24 22:00-06:00 Europe/Berlin'"
        )
        raise UsageError(message) from None


def _window(text: str) -> MaintenanceWindow:
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    on, days = _days(match["days"])
    return MaintenanceWindow(
        days=days,
        on=on,
        begin=time.fromisoformat(match["begin"]),
        end=time.fromisoformat(match["end"]),
        zone=ZoneInfo(match["zone"]),
    )


def _days(text: str | None) -> tuple[date | None, frozenset[int]]:
    if text is None:
        return None, frozenset(range(7))
    if text[0].isdigit():
        return date.fromisoformat(text), frozenset()
    days: set[int] = set()
    for part in text.lower().split(","):
        first, *last = (_DAYS.index(name) for name in part.split("-"))
        if len(last) > 1:
            raise ValueError(text)
        until = last[0] if last else first
        days.update(day % 7 for day in range(first, until + 1 if until >= first else until + 8))
    return None, frozenset(days)
