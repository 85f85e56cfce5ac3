"""Settings that arrive as text, from a rendered template or a connection's URI: yes, no or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_batchkit.engine.exceptions import UsageError

_YES = {"true", "1", "yes", "on"}
_NO = {"false", "0", "no", "off", "", "none"}


def as_switch(name: str, value: Any) -> bool:
    """Return a setting as a truth value.

    :param name: for the message.
    :param value: a bool, or text such as ``"True"``, ``"false"``, ``""`` or ``"None"``.
    :raises UsageError: the text means neither yes nor no.
    """
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _YES:
        return True
    if text in _NO:
        return False
    raise UsageError(f"{name}={value!r}: must be true or false")


def as_optional_text(value: Any) -> str | None:
    """Return a setting as text, None where it is left empty."""
    if value is None:
        return None
    text = (value.isoformat() if hasattr(value, "isoformat") else str(value)).strip()
    return None if text.lower() in {"", "none"} else text


def optional_texts(settings: Mapping[str, Any], *names: str) -> dict[str, str | None]:
    """Return some of the settings as text, None where one is missing or left empty."""
    return {name: as_optional_text(settings.get(name)) for name in names}
