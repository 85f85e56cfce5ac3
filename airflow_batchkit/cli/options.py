"""Option values that are more than a word or a number: each is checked where it is typed."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import msgspec
from typing_extensions import override

from airflow_batchkit.engine.policies import ErrorBudget, RateLimit

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?i?b)?", re.IGNORECASE)
_AGE = re.compile(r"(\d+)\s*([smhdw])", re.IGNORECASE)
_AGE_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class ByteSize(click.ParamType[int]):
    """``8388608``, ``8MiB`` or ``10MB``, as a number of bytes."""

    name = "size"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(value.strip())
        size = 0 if match is None else math.floor(float(match[1]) * _UNITS.get((match[2] or "").lower(), 0))
        if size < 1:
            self.fail(f"{value!r} is not a size; write for example 8MiB, 10MB or 8388608", param, ctx)
        return size


class Rate(click.ParamType[RateLimit]):
    """``5000`` or ``5000/s`` (records), ``20MiB/s`` (bytes)."""

    name = "rate"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> RateLimit:
        if isinstance(value, RateLimit):
            return value
        match = _SIZE.fullmatch(value.strip().removesuffix("/s").strip())
        number = 0.0 if match is None else float(match[1])
        unit = (match[2] or "").lower() if match is not None else ""
        if number <= 0 or unit not in _UNITS:
            self.fail(f"{value!r} is not a rate; write for example 5000 (records a second) or 20MiB/s", param, ctx)
        if unit:
            return RateLimit(bytes_per_second=number * _UNITS[unit])
        return RateLimit(records_per_second=number)


class Budget(click.ParamType[ErrorBudget]):
    """``10`` (dead letters) or ``0.5%`` (of the records read)."""

    name = "budget"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ErrorBudget:
        if isinstance(value, ErrorBudget):
            return value
        text = value.strip()
        if text.isdecimal():
            return ErrorBudget(max_dead_letters=int(text))
        try:
            percent = float(text.removesuffix("%")) if text.endswith("%") else math.nan
        except ValueError:
            percent = math.nan
        if not 0 < percent <= 100:  # noqa: PLR2004  # per cent
            self.fail(f"{value!r} is not an error budget; write a number (10) or a share above 0 (0.5%)", param, ctx)
        return ErrorBudget(max_fraction=percent / 100)


class JsonObject(click.ParamType[dict[str, Any]]):
    """A JSON object, or ``@file`` with one in it."""

    name = "json"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        text = self._read(value[1:], param, ctx) if value.startswith("@") else value
        try:
            return msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeError) as error:
            self.fail(f"not a JSON object: {error}", param, ctx)

    def _read(self, name: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            self.fail(f"cannot read {name!r}: {getattr(error, 'strerror', None) or 'not UTF-8'}", param, ctx)


class Age(click.ParamType[timedelta]):
    """``7d``, ``12h``, ``30m``."""

    name = "age"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = _AGE.fullmatch(value.strip())
        if match is None:
            self.fail(f"{value!r} is not an age; write for example 7d, 12h or 30m", param, ctx)
        return timedelta(**{_AGE_UNITS[match[2].lower()]: int(match[1])})
