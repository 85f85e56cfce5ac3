"""What is typed behind the options of ``batchkit run`` is checked where it is typed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import click
import pytest

from airflow_batchkit.cli import run_options

_CONTEXT = click.Context(click.Command("run"))
_OPTION = click.Option(["--option"])


def read(callback: Callable[..., Any], given: Any) -> Any:
    """Call an option's callback."""
    return callback(_CONTEXT, _OPTION, given)


def test_dates() -> None:
    """A date stays a date; an instant without a zone is UTC, one with a zone keeps it."""
    assert read(run_options.moment, None) is None
    found = read(run_options.moment, "2026-11-22")
    assert found == date(2026, 11, 22)
    assert not isinstance(found, datetime)
    assert read(run_options.moment, "2026-11-22T03:00") == datetime(2026, 11, 22, 3, tzinfo=UTC)
    zone = timezone(timedelta(hours=1))
    assert read(run_options.moment, "2026-11-22T03:00+01:00") == datetime(2026, 11, 22, 3, tzinfo=zone)
    with pytest.raises(click.BadParameter, match="'yesterday' is not a date"):
        read(run_options.moment, "yesterday")


def test_params_are_json_where_they_can_be() -> None:
    """``true`` and ``5`` mean what they mean in JSON, anything else is text, also with ``=`` in it."""
    given = ("restart=true", "days=5", "region=eu", "where=a=b", "empty=")
    assert read(run_options.params, given) == {
        "restart": True,
        "days": 5,
        "region": "eu",
        "where": "a=b",
        "empty": "",
    }


def test_variables_are_text() -> None:
    """A variable is text, whatever it looks like."""
    assert read(run_options.variables, ("limit=5",)) == {"limit": "5"}


def test_xcoms_are_json_by_task_and_key() -> None:
    """Without a key it is what the task returned."""
    given = ('list_days=["a","b"]', "survey:count=5")
    assert read(run_options.xcoms, given) == {
        ("list_days", "return_value"): ["a", "b"],
        ("survey", "count"): 5,
    }
    with pytest.raises(click.BadParameter, match="survey: not JSON"):
        read(run_options.xcoms, ("survey=eu",))


@pytest.mark.parametrize("text", ["restart", "=5", ""])
def test_what_is_no_pair_is_refused(text: str) -> None:
    """A name without a value, or a value without a name, is a typo."""
    with pytest.raises(click.BadParameter, match="must be NAME=VALUE"):
        read(run_options.params, (text,))
