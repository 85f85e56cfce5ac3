"""Runs leg after leg: who runs a command line has no scheduler that would come back later."""

from __future__ import annotations

import dataclasses
import os
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypedDict

import click
from typing_extensions import Unpack

from airflow_batchkit import __version__
from airflow_batchkit.cli.checkpoint_files import CheckpointFile
from airflow_batchkit.engine.charging import why_exceeded
from airflow_batchkit.engine.exceptions import CannotResumeError, ErrorBudgetExceededError, StoppedError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.policies.budget import Spent
from airflow_batchkit.engine.resumption import is_same_run

if TYPE_CHECKING:
    from airflow_batchkit.engine.checkpoint import Checkpoint
    from airflow_batchkit.engine.connections import Connections
    from airflow_batchkit.engine.listener import Listener
    from airflow_batchkit.engine.pipeline import Pipeline
    from airflow_batchkit.engine.report import Report
    from airflow_batchkit.engine.stop import Stop


class Limits(TypedDict, total=False):
    """How often a run may come back (:class:`Pipeline`)."""

    max_stuck_legs: int
    max_legs: int


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
    spent = Spent(read=counts.read, dead_lettered=counts.dead_lettered, classes=stored.classes)
    if job.error_budget.exceeded(spent) is not None:
        raise ErrorBudgetExceededError(
            f"{why_exceeded(stored)}; go on with a larger error budget, or begin anew with --restart"
        )
    return dataclasses.replace(identity, clear_marker=now)


def job_of_run(file: CheckpointFile, job: Job) -> Job:
    """Return the job under the name that an unfinished run, begun as another job, has at its target."""
    stored = _stored(file, job, restart=True)
    if stored is None or stored.status == "completed" or not stored.job:
        return job
    return dataclasses.replace(job, name=stored.job)


def pipelines(
    job: Job,
    file: CheckpointFile,
    *,
    connections: Connections,
    stop: Stop,
    listeners: Sequence[Listener],
    facts: Mapping[str, Any] | None = None,
    **limits: Unpack[Limits],
) -> Callable[[RunIdentity], Pipeline]:
    """Return what makes one leg after the other of a run.

    :param file: where the checkpoint is kept.
    :param listeners: who looks on.
    :param facts: more of them for the start block.
    :param limits: of :class:`Pipeline`. Default: its own.
    """
    from airflow_batchkit.cli.progress import LOG
    from airflow_batchkit.engine.pipeline import Pipeline

    def pipeline(identity: RunIdentity) -> Pipeline:
        return Pipeline(
            job,
            identity=identity,
            store=file.store,
            key=file.key,
            connections=connections,
            stop=stop,
            listeners=listeners,
            environment={**environment(), **(facts or {})},
            log=LOG,
            **limits,
        )

    return pipeline


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
