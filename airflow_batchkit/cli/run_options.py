"""Option values of ``batchkit run``, each checked where it is typed (click callbacks)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import click
import msgspec

from airflow_batchkit.cli.run_supervisor import RETURN_VALUE


def moment(_context: click.Context, _option: click.Parameter, text: str | None) -> date | None:
    """Read ``2026-11-22`` as a date, ``2026-11-22T03:00`` (UTC where no zone is given) as an instant."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a date; write for example 2026-11-22 or 2026-11-22T03:00"
        ) from None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def params(_context: click.Context, _option: click.Parameter, given: Sequence[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` several times; a value is JSON where it can be read so, else text."""
    return {name: _json_or_text(value) for name, value in map(_pair, given)}


def variables(_context: click.Context, _option: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    """Read ``NAME=VALUE`` several times."""
    return dict(map(_pair, given))


def xcoms(
    _context: click.Context, _option: click.Parameter, given: Sequence[str]
) -> dict[tuple[str, str], Any]:
    """Read ``TASK=JSON`` or ``TASK:KEY=JSON`` several times."""
    found: dict[tuple[str, str], Any] = {}
    for name, value in map(_pair, given):
        task_id, _, key = name.partition(":")
        try:
            found[task_id, key or RETURN_VALUE] = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise click.BadParameter(f"{name}: not JSON: {error}") from error
    return found


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} must be NAME=VALUE")
    return name, value


def _json_or_text(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
