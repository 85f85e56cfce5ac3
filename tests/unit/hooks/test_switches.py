"""Text that a form or a connection's URI gives means yes, no or nothing."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.hooks.switches import as_optional_text, as_switch


@pytest.mark.parametrize("value", [True, "True", "true", " TRUE ", "1", "yes", "on", 1])
def test_yes(value: Any) -> None:
    """All the ways of saying yes."""
    assert as_switch("local", value) is True


@pytest.mark.parametrize("value", [False, "False", "false", "0", "no", "off", "", "None", None, 0])
def test_no(value: Any) -> None:
    """All the ways of saying no, an empty form field among them."""
    assert as_switch("local", value) is False


def test_neither() -> None:
    """What is neither yes nor no is refused, with the field's name."""
    with pytest.raises(UsageError, match="local='perhaps'"):
        as_switch("local", "perhaps")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("", None),
        (" ", None),
        ("None", None),
        ("2026-01-02", "2026-01-02"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (17, "17"),
    ],
)
def test_optional_text(value: Any, text: str | None) -> None:
    """An empty field is None; native rendering may give other types."""
    assert as_optional_text(value) == text
