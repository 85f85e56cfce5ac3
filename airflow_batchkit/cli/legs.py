"""Runs leg after leg: who runs a command line has no scheduler that would come back later."""

from __future__ import annotations

import dataclasses
import os
import platform
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from airflow_batchkit import __version__
from airflow_batchkit.cli.checkpoint_files import CheckpointFile
from airflow_batchkit.engine.exceptions import CannotResumeError, ErrorBudgetExceededError, StoppedError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.resumption import is_same_run

if TYPE_CHECKING:
    from airflow_batchkit.engine.checkpoint import Checkpoint
    from airflow_batchkit.engine.listener import Listener
    from airflow_batchkit.engine.pipeline import Pipeline
    from airflow_batchkit.engine.report import Report
    from airflow_batchkit.engine.stop import Stop


def identity_of(
    file: CheckpointFile, job: Job, *, restart: bool, run: str | None = None, clear_marker: str = ""
) -> RunIdentity:
    """Take over an unfinished run, or begin a new one.

    A restart keeps the name of an unfinished run, which may still own the target: nothing to wait for.
    Its new clear marker gives the output another generation.

    :param run: names the run, where the command does: once complete, it is only reported again. None: a
        complete run is followed by another.
    :param clear_marker: of a run that begins.
    :raises ErrorBudgetExceededError: the run failed on its error budget, which is no larger now.
    """
    now = datetime.now(tz=UTC).strftime("%Y%m%dT%H%M%SZ")
    stored = _stored(file, job, restart=restart)
    if stored is not None and (stored.status == "completed" if run is None else not is_same_run(stored, run)):
        stored = None
    identity = RunIdentity(
        run=run or (f"{now}-{os.getpid()}" if stored is None else stored.run),
        clear_marker=clear_marker if stored is None else stored.clear_marker,
        holder=file.holder,
        nameless=run is None and (stored is None or stored.alias == ""),
    )
    if restart:
        return dataclasses.replace(identity, clear_marker=now, restart=True)
    if stored is None or not stored.budget.exceeded:
        return identity
    counts = stored.counts
    if job.error_budget.exceeded(dead_lettered=counts.dead_lettered, read=counts.read) is not None:
        raise ErrorBudgetExceededError(
            f"{stored.budget.exceeded}; go on with a larger error budget, or begin anew with --restart"
        )
    return dataclasses.replace(identity, clear_marker=now)


def job_of_run(file: CheckpointFile, job: Job) -> Job:
    """Return the job under the name that an unfinished run, begun as another job, has at its target."""
    stored = _stored(file, job, restart=True)
    if stored is None or stored.status == "completed" or not stored.job:
        return job
    return dataclasses.replace(job, name=stored.job)


def run_legs(
    new_pipeline: Callable[[RunIdentity], Pipeline], identity: RunIdentity, *, stop: Stop, listener: Listener
) -> Report:
    """Run until the run is complete; sit out the pauses after which a scheduler would come back.

    :param new_pipeline: makes the next leg.
    :param listener: is told of the pauses.
    :raises StoppedError: someone asked to stop.
    """
    from airflow_batchkit.cli.progress import LOG

    while True:
        try:
            return new_pipeline(identity).run()
        except StoppedError as stopped:
            pause = stopped.resume_after
            if stop.asked or pause is None:
                raise
            LOG.warning("%s; going on in %.0f s", stopped, pause)
            listener.on_waiting(str(stopped), pause)
            stop.wait(pause)
            stop.raise_if_asked()
        identity = dataclasses.replace(identity, restart=False)


def environment() -> dict[str, Any]:
    """Return the facts of this process for the log's start block."""
    return {
        "command": f"batchkit {__version__}",
        "python": platform.python_version(),
        "host": platform.node(),
        "pid": os.getpid(),
    }


def say_how_to_go_on(stopped: StoppedError) -> None:
    """Print the command that goes on from the checkpoint."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--restart"]
    click.echo(f"batchkit: {stopped}; to go on: {shlex.join(['batchkit', *arguments])}", err=True)


def show(report: Report) -> None:
    """Print the final account to standard output."""
    from airflow_batchkit.engine.progress_log import summary

    title, _, rows = summary(report).partition("\n")
    click.echo(click.style(title, bold=True))
    click.echo(rows)


def _stored(file: CheckpointFile, job: Job, *, restart: bool) -> Checkpoint | None:
    try:
        return file.read(mode=job.mode)
    except CannotResumeError:
        if restart:
            return None
        raise
