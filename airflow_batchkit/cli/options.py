"""Option values that are more than a word or a number, each checked where it is typed (click callbacks)."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import msgspec

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.policies import ErrorBudget, RateLimit
from airflow_batchkit.stores.target import TARGET

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(b|[kmg]i?b|)", re.IGNORECASE)
_AGE = re.compile(r"(\d+) ?([smhdw])")
_AGE_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_HUNDRED = 100


def checkpoint(_context: click.Context, _option: click.Parameter, text: str | None) -> Path | str | None:
    """Read ``target`` as that word, anything else as a file (``./target`` is one)."""
    if text is None or text == TARGET:
        return text
    if Path(text).is_dir():
        raise click.BadParameter(f"{text!r} is a folder; name a file, or write: target")
    return Path(text)


def byte_size(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """Read ``8388608``, ``8MiB`` or ``10MB`` as a number of bytes."""
    if text is None:
        return None
    size = size_of(text)
    if size is None:
        raise click.BadParameter(f"{text!r} is not a size; write for example 8MiB, 10MB or 8388608")
    return size


def size_of(text: str) -> int | None:
    """Return a size in bytes, None where it is none."""
    amount, unit = _amount(text)
    return math.floor(amount * _UNITS[unit]) or None


def rate(_context: click.Context, _option: click.Parameter, text: str | None) -> RateLimit | None:
    """Read ``5000`` (records a second) or ``20MiB/s`` (bytes a second)."""
    if text is None:
        return None
    amount, unit = _amount(text.strip().removesuffix("/s"))
    if amount <= 0:
        raise click.BadParameter(
            f"{text!r} is not a rate; write for example 5000 (records a second) or 20MiB/s"
        )
    if unit:
        return RateLimit(bytes_per_second=amount * _UNITS[unit])
    return RateLimit(records_per_second=amount)


def error_budget(_context: click.Context, _option: click.Parameter, text: str | None) -> ErrorBudget:
    """Read ``10`` (dead letters), ``0.5%`` (of the records read), ``size=0`` (of one class), or several."""
    limits: dict[str, Any] = {}
    classes: dict[str, int] = {}
    for part in [] if text is None else text.split(","):
        limit = re.fullmatch(r"(?:(\w+)=)?(\d+(?:\.\d+)?) ?(%?)", part.strip())
        name, number, percent = limit.groups() if limit else ("", "", "")
        if percent and not name:
            limits["max_fraction"] = float(number) / _HUNDRED
        elif number.isdecimal() and not percent:
            (classes if name else limits)[name or "max_dead_letters"] = int(number)
        else:
            raise click.BadParameter(
                f"{text!r} is not an error budget; write a number (10), a share (0.5%), a number for one "
                "class (size=0), or several of them (100,size=0)"
            )
    try:
        return ErrorBudget(**limits, max_per_class=classes or None)
    except UsageError as error:
        raise click.BadParameter(str(error)) from error


def json_object(_context: click.Context, _option: click.Parameter, text: str | None) -> dict[str, Any] | None:
    """Read a JSON object, or ``@file`` with one in it."""
    if text is None:
        return None
    try:
        content = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        return msgspec.json.decode(content, type=dict[str, Any])
    except OSError as error:
        raise click.BadParameter(f"cannot read {text[1:]!r}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise click.BadParameter(f"not a JSON object: {error}") from error


def age(_context: click.Context, _option: click.Parameter, text: str | None) -> timedelta | None:
    """Read ``7d``, ``12h`` or ``30m``."""
    if text is None:
        return None
    found = age_of(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not an age; write for example 7d, 12h or 30m")
    return found


def age_of(text: str) -> timedelta | None:
    """Return a duration, None where it is none."""
    match = _AGE.fullmatch(text.strip().lower())
    return None if match is None else timedelta(**{_AGE_UNITS[match[2]]: int(match[1])})


def _amount(text: str) -> tuple[float, str]:
    match = _SIZE.fullmatch(text.strip())
    return (0.0, "") if match is None else (float(match[1]), match[2].lower())
