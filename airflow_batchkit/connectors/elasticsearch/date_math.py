"""Elasticsearch's date math with ``now``, resolved here, so that all pages of a run mean the same instant."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_batchkit.engine.exceptions import UsageError

_NOW = re.compile(r"now(?:[+-]\d*[yMwdhHms]|/[yMwdhHms])*")
_STEP = re.compile(r"([+-/])(\d*)([yMwdhHms])")
_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")
_MILLISECOND = timedelta(milliseconds=1)
_FIXED = {"w": "weeks", "d": "days", "h": "hours", "H": "hours", "m": "minutes", "s": "seconds"}


def uses_now(text: str) -> bool:
    """Whether the whole text is date math that begins with ``now``."""
    return _NOW.fullmatch(text) is not None


def resolve(text: str, now: datetime, *, round_up: bool, time_zone: str | None = None) -> str:
    """Return the instant that date math means, as ISO 8601 in UTC with milliseconds.

    :param text: ``now``, with steps such as ``+1d``, ``-3h`` and rounding such as ``/d``.
    :param now: the run's instant, with a time zone.
    :param round_up: rounding goes to the last millisecond of the unit (``gt``, ``lte``), else to its first.
    :param time_zone: where days, weeks, months and years begin: ``+02:00``, ``Europe/Paris``. Default UTC.
    :raises UsageError: the text is not date math, or the zone is unknown.
    """
    if not uses_now(text):
        raise UsageError(f"{text!r} is not date math with now, such as now-1d/d")
    zone = _zone(time_zone)
    moment = now.astimezone(zone).replace(microsecond=now.microsecond // 1000 * 1000)
    try:
        for operator, number, unit in _STEP.findall(text):
            if operator == "/":
                moment = _rounded(moment, unit, round_up=round_up)
            else:
                moment = _moved(moment, unit, int(number or 1) * (-1 if operator == "-" else 1))
    except (OverflowError, ValueError) as error:
        raise UsageError(f"date math {text!r} leads out of the years 1 to 9999") from error
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _zone(name: str | None) -> tzinfo:
    if name is None or name in {"Z", "UTC"}:
        return UTC
    offset = _OFFSET.fullmatch(name)
    if offset:
        sign, hours, minutes = offset.groups()
        size = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-size if sign == "-" else size)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise UsageError(
            f"time_zone {name!r}: must be an offset such as +02:00 or a name such as Europe/Paris"
        ) from error


def _moved(moment: datetime, unit: str, count: int) -> datetime:
    if unit in "yM":
        months = moment.year * 12 + moment.month - 1 + count * (12 if unit == "y" else 1)
        year, month = divmod(months, 12)
        day = min(moment.day, calendar.monthrange(year, month + 1)[1])
        return moment.replace(year=year, month=month + 1, day=day)
    if unit in "wd":
        return moment + timedelta(**{_FIXED[unit]: count})
    # Hours are lengths of time, days are steps on the calendar: they differ when clocks change.
    return _later(moment, timedelta(**{_FIXED[unit]: count}))


def _later(moment: datetime, length: timedelta) -> datetime:
    return (moment.astimezone(UTC) + length).astimezone(moment.tzinfo)


def _rounded(moment: datetime, unit: str, *, round_up: bool) -> datetime:
    start = _start(moment, unit)
    return _later(_moved(start, unit, 1), -_MILLISECOND) if round_up else start


def _start(moment: datetime, unit: str) -> datetime:
    if unit == "s":
        return moment.replace(microsecond=0)
    if unit == "m":
        return moment.replace(second=0, microsecond=0)
    if unit in "hH":
        return moment.replace(minute=0, second=0, microsecond=0)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if unit == "w":
        return midnight - timedelta(days=midnight.weekday())
    if unit == "M":
        return midnight.replace(day=1)
    return midnight.replace(month=1, day=1) if unit == "y" else midnight
