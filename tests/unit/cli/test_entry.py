"""The command as a whole: help with examples, one line and the right exit code for every mistake."""

from __future__ import annotations

import click
import pytest

from airflow_batchkit import __version__
from airflow_batchkit.cli import entry, main
from airflow_batchkit.cli.exits import exit_code, one_line
from airflow_batchkit.engine.exceptions import (
    CannotResumeError,
    ErrorBudgetExceededError,
    StoppedError,
    TargetHeldError,
    UsageError,
)


def run(*arguments: str) -> int:
    """Run the command in this process and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is the package's."""
    assert run("--version") == 0
    assert capsys.readouterr().out == f"batchkit {__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("copy",),
        ("checkpoints",),
        ("checkpoints", "list"),
        ("checkpoints", "show"),
        ("checkpoints", "clear"),
        ("demo",),
    ],
)
def test_every_help_has_examples(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    """Each command shows how it is used, and ends well."""
    assert run(*command, "--help") == 0
    shown = capsys.readouterr().out
    assert "Examples:" in shown
    assert f"  {' '.join(('batchkit', *command))}" in shown


def test_bare_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Who types `batchkit` alone sees what there is."""
    assert run() == 0
    shown = capsys.readouterr().out
    for name in ("copy", "checkpoints", "demo"):
        assert f"\n  {name} " in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("copy",),
        ("copy", "a"),
        ("copy", "a", "b"),
        ("copy", "sqlite:///x.db?table=t", "file:///tmp/x", "--rate", "fast"),
        ("copy", "sqlite:///x.db?table=t", "file:///tmp/x", "--max-records-per-batch", "0"),
        ("copy", "sqlite:///x.db?table=t", "file:///tmp/x", "--compression", "zip"),
        ("copy", "sqlite:///x.db?table=t", "file:///tmp/x", "--query", "{"),
        ("copy", "sqlite:///x.db?table=t", "file:///tmp/x", "--error-budget", "3"),
        ("copy", "sqlite:///x.db?table=t", "file:///tmp/x", "--dead-letters", "somewhere"),
        ("copy", "mysql://localhost/shop?table=orders", "file:///tmp/x"),
        ("copy", "elasticsearch+http://u:s3cret@localhost:9200/orders", "file:///tmp/x"),
        ("checkpoints", "clear"),
        ("checkpoints", "show"),
    ],
)
def test_wrong_usage_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Wrong usage ends with exit code 2 and exactly one line, without a trace and without a secret."""
    monkeypatch.setenv("XDG_STATE_HOME", "/nonexistent")
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("batchkit")
    assert "s3cret" not in captured.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no such index"), 2),
        (click.UsageError("no such option"), 2),
        (CannotResumeError("damaged"), 1),
        (TargetHeldError("held", 3.0), 1),
        (ErrorBudgetExceededError("11 of 10"), 3),
        (StoppedError("stopped"), 4),
        (click.Abort(), 1),
        (ZeroDivisionError("a record's content"), 1),
        (PermissionError(13, "Permission denied", "/data"), 1),
    ],
)
def test_each_error_has_its_exit_code_and_one_line(error: Exception, code: int) -> None:
    """A script can tell from the exit code what to do, a person from the one line."""
    assert exit_code(error) == code
    line = one_line(error)
    assert "\n" not in line
    assert line.startswith("batchkit")


def test_unexpected_error_shows_its_trace_only_where_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody foresaw is one line without its text, which may hold a record; -v shows all."""

    def fail(*_arguments: object, **_named: object) -> None:
        raise ZeroDivisionError("a record's content")

    monkeypatch.setattr(entry.batchkit, "main", fail)
    assert run("copy") == 1
    assert capsys.readouterr().err == "batchkit: unexpected ZeroDivisionError; add -v for the stack trace\n"
    assert run("copy", "-v") == 1
    assert "a record's content" in capsys.readouterr().err


def test_error_of_the_system_names_the_file() -> None:
    """What the operating system says is safe to show, and names the file."""
    assert one_line(PermissionError(13, "Permission denied", "/data")).startswith(
        "batchkit: Permission denied: /data"
    )
