"""Values of options: what is understood, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from airflow_batchkit.cli import options
from airflow_batchkit.engine.policies import ErrorBudget, RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable

CONTEXT = click.Context(click.Command("copy"))
OPTION = click.Option(["--option"])


def read(callback: Callable[..., Any], text: str | None) -> Any:
    """Call an option's callback as click does."""
    return callback(CONTEXT, OPTION, text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8388608", 8_388_608),
        ("8MiB", 8 * 2**20),
        ("10 mb", 10_000_000),
        ("1.5KiB", 1536),
        ("7b", 7),
        (None, None),
    ],
)
def test_size_in_bytes(text: str | None, size: int | None) -> None:
    """Plain numbers, decimal and binary units are understood."""
    assert read(options.byte_size, text) == size


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5000", RateLimit(records_per_second=5000)),
        ("0.5/s", RateLimit(records_per_second=0.5)),
        ("20MiB/s", RateLimit(bytes_per_second=20 * 2**20)),
        (None, None),
    ],
)
def test_rate(text: str | None, rate: RateLimit | None) -> None:
    """A bare number is records a second, one with a unit bytes a second."""
    assert read(options.rate, text) == rate


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        (None, ErrorBudget()),
        ("0", ErrorBudget(max_dead_letters=0)),
        ("10", ErrorBudget(max_dead_letters=10)),
        ("0.5%", ErrorBudget(max_fraction=0.005)),
        ("100 %", ErrorBudget(max_fraction=1.0)),
        ("size=0", ErrorBudget(max_per_class={"size": 0})),
        ("record=100, size=0", ErrorBudget(max_per_class={"record": 100, "size": 0})),
        (
            "10,1.5%,record=7",
            ErrorBudget(max_dead_letters=10, max_fraction=0.015, max_per_class={"record": 7}),
        ),
    ],
)
def test_error_budget(text: str | None, budget: ErrorBudget) -> None:
    """A number limits the dead letters, a percentage their share, a name and a number those of a class."""
    assert read(options.error_budget, text) == budget


@pytest.mark.parametrize(
    ("text", "elapsed"),
    [("7d", timedelta(days=7)), ("12 h", timedelta(hours=12)), ("30M", timedelta(minutes=30)), (None, None)],
)
def test_age(text: str | None, elapsed: timedelta | None) -> None:
    """Days, hours and minutes are understood."""
    assert read(options.age, text) == elapsed


def test_query_from_the_command_line_and_from_a_file(tmp_path: Path) -> None:
    """A query is JSON as it stands, or the name of a file that holds it, after an @."""
    file = tmp_path / "query.json"
    file.write_text('{"term": {"city": "Zürich"}}', encoding="utf-8")
    assert read(options.json_object, '{"match_all": {}}') == {"match_all": {}}
    assert read(options.json_object, f"@{file}") == {"term": {"city": "Zürich"}}
    assert read(options.json_object, None) is None


@pytest.mark.parametrize(
    ("callback", "text"),
    [
        (options.byte_size, "0"),
        (options.byte_size, "-5"),
        (options.byte_size, "many"),
        (options.byte_size, "5XB"),
        (options.rate, "0"),
        (options.rate, "fast"),
        (options.rate, ""),
        (options.error_budget, "-1"),
        (options.error_budget, "0%"),
        (options.error_budget, "101%"),
        (options.error_budget, "some"),
        (options.error_budget, ""),
        (options.error_budget, "1.5"),
        (options.error_budget, "10,,1%"),
        (options.error_budget, "size=1%"),
        (options.error_budget, "huge=1"),
        (options.age, "7"),
        (options.age, "a week"),
        (options.json_object, "[1]"),
        (options.json_object, "{"),
        (options.json_object, "@/no/such/file"),
    ],
)
def test_mistaken_value_is_refused_in_one_line(callback: Callable[..., Any], text: str) -> None:
    """What cannot be meant is refused as wrong usage, in one line."""
    with pytest.raises(click.BadParameter) as caught:
        read(callback, text)
    assert "\n" not in caught.value.format_message()


def test_where_progress_is_kept(tmp_path: Path) -> None:
    """The one word means beside the output; everything else is a file, and no folder."""
    assert read(options.checkpoint, None) is None
    assert read(options.checkpoint, "target") == "target"
    assert read(options.checkpoint, "./target") == Path("target")
    with pytest.raises(click.BadParameter, match="is a folder; name a file, or write: target"):
        read(options.checkpoint, str(tmp_path))
