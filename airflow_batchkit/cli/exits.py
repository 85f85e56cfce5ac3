"""How a command ends: which exit code, and which one line, for which error."""

from __future__ import annotations

import click

from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    ErrorBudgetExceededError,
    StoppedError,
    TransientError,
    UsageError,
)

DONE = 0
FAILED = 1
WRONG_USAGE = 2
ERROR_BUDGET_EXCEEDED = 3
STOPPED = 4
DAMAGED = 5
DIFFERS = 6


def exit_code(error: BaseException) -> int:
    """Return the exit code that tells a script what to do about the error."""
    if isinstance(error, UsageError | click.UsageError):
        return WRONG_USAGE
    if isinstance(error, ErrorBudgetExceededError):
        return ERROR_BUDGET_EXCEEDED
    if isinstance(error, StoppedError):
        return STOPPED
    return FAILED


def one_line(error: BaseException, *, verbose: bool = False) -> str:
    """Say in one line what happened and what to do next.

    :param verbose: the stack trace was shown already.
    """
    if isinstance(error, click.UsageError):
        command = "batchkit" if error.ctx is None else error.ctx.command_path
        return f"{command}: {_flat(error.format_message()).rstrip('.')} (see: {command} --help)"
    if isinstance(error, click.Abort):
        return "batchkit: given up; nothing was changed"
    if isinstance(error, TransientError):
        return f"batchkit: {_flat(error)} (to go on from the last checkpoint, run the same command again)"
    if isinstance(error, BatchkitError):
        return f"batchkit: {_flat(error)}"
    hint = "" if verbose else "; add -v for the stack trace"
    # The text of an unknown error may hold a record, a header or a URL: only its type is safe to show.
    place = f"unexpected {type(error).__name__}"
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"batchkit: {place}{hint}"


def _flat(message: object) -> str:
    return " ".join(str(message).split())
