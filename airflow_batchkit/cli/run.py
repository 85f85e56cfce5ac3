"""``batchkit run``: a task of a DAG file, by hand, without Airflow's scheduler, server and database."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from airflow_batchkit.cli import legs, options, run_options
from airflow_batchkit.cli.checkpoint_files import (
    CheckpointFile,
    TargetCheckpoint,
    checkpoint_at,
    checkpoint_beside,
    default_folder,
)
from airflow_batchkit.cli.exits import DONE, STOPPED
from airflow_batchkit.cli.interrupts import Interrupts
from airflow_batchkit.cli.run_library import airflow_as_a_library
from airflow_batchkit.engine.exceptions import StoppedError, UsageError
from airflow_batchkit.engine.memory import settle_process
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.stores.target import TARGET

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_batchkit.cli.run_dag_file import Task
    from airflow_batchkit.cli.run_rendering import HandRun
    from airflow_batchkit.engine.connections import Connections
    from airflow_batchkit.engine.job import Job
    from airflow_batchkit.engine.listener import Listener
    from airflow_batchkit.operators.base import BatchkitOperator


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options as they were given, each checked by itself."""

    dag_id: str | None
    logical_date: date | None
    run_id: str | None
    conf: Mapping[str, Any] | None
    params: Mapping[str, Any]
    variables: Mapping[str, str]
    xcoms: Mapping[tuple[str, str], Any]
    map_index: int
    local: bool
    restart: bool
    start_at: str | None
    checkpoint: Path | str | None
    plan: bool
    progress: bool | None
    verbose: bool


@click.command()
@click.argument("dag_file", type=click.Path(path_type=Path))
@click.argument("task_id")
@click.option("--dag-id", metavar="DAG", help="Which DAG, where several in the file have such a task.")
@click.option(
    "--logical-date",
    callback=run_options.moment,
    metavar="DATE",
    help="The scheduled run whose {{ ds }} is this date; with a time: whose logical date is this instant.",
)
@click.option("--run-id", metavar="ID", help="What {{ run_id }} gives. Default: manual__<logical date>.")
@click.option("--conf", callback=options.json_object, metavar="JSON|@FILE", help="The run's configuration.")
@click.option(
    "--param",
    "params",
    multiple=True,
    callback=run_options.params,
    metavar="NAME=VALUE",
    help="A param of the DAG, as in the trigger form. May be repeated.",
)
@click.option(
    "--var",
    "variables",
    multiple=True,
    callback=run_options.variables,
    metavar="NAME=VALUE",
    help="An Airflow variable; AIRFLOW_VAR_<NAME> does the same. May be repeated.",
)
@click.option(
    "--xcom",
    "xcoms",
    multiple=True,
    callback=run_options.xcoms,
    metavar="TASK[:KEY]=JSON",
    help="What another task returned, where the templates need it. May be repeated.",
)
@click.option(
    "--map-index", type=click.IntRange(min=0), default=None, metavar="N", help="Which one of a mapped task."
)
@click.option("--local", is_flag=True, help="LOCAL mode: read everything, write nothing.")
@click.option("--restart", is_flag=True, help="Begin anew, whatever progress was saved.")
@click.option("--start-at", metavar="CURSOR|DATE", help="Only a part: begin here, as the source understands.")
@click.option(
    "--checkpoint",
    callback=options.checkpoint,
    metavar="FILE|target",
    help="Keep progress in this file, or beside the output, which is the default where the task has "
    "checkpoint_store='target'. Else: a file below ~/.local/state/airflow-batchkit/checkpoints.",
)
@click.option("--plan", is_flag=True, help="Only show, as JSON, what would be done.")
@click.option("--progress/--no-progress", default=None, help="A moving line. Default: only on a terminal.")
@click.option("-v", "--verbose", is_flag=True, help="Show each query, and the stack trace of errors.")
def run(dag_file: Path, task_id: str, *, map_index: int | None, **given: Any) -> int:
    """Run TASK_ID of DAG_FILE by hand: same operator, same engine, no scheduler, no metadata database.

    \b
    Connections come from AIRFLOW_CONN_<ID>, variables from AIRFLOW_VAR_<NAME>, settings from airflow.cfg.
    Callbacks, alerts and Airflow's retries do not apply; waits are sat out; Airflow is not told.
    The run's progress is kept in a file: the same command goes on after a stop or a kill. Once the run of
    a date is complete, the same command reports it again; --restart does it anew.

    \b
    Examples:
      batchkit run dags/orders.py export_orders --logical-date 2026-11-22
      batchkit run dags/orders.py export_orders --logical-date 2026-11-22 --local
      batchkit run dags/orders.py export_orders --logical-date 2026-11-22T03:00 --param region=eu --plan

    \b
    Exit codes: 0 done · 1 failed · 2 wrong usage · 3 error budget exceeded · 4 stopped and can be resumed
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    settle_process()
    settings = RunOptions(map_index=-1 if map_index is None else map_index, **given)
    with airflow_as_a_library():
        from airflow_batchkit.cli.run_supervisor import supervised

        os.environ.update(
            {f"AIRFLOW_VAR_{name.upper()}": value for name, value in settings.variables.items()}
        )
        with supervised(settings.xcoms):
            return _run(dag_file, task_id, settings)


def _run(dag_file: Path, task_id: str, settings: RunOptions) -> int:
    from airflow_batchkit.cli.run_dag_file import find_task
    from airflow_batchkit.cli.run_dates import dates_of
    from airflow_batchkit.cli.run_rendering import HandRun, rendered
    from airflow_batchkit.hooks.airflow_thread import AirflowThread
    from airflow_batchkit.hooks.connections import AirflowConnections

    dag, found = find_task(dag_file, task_id, dag_id=settings.dag_id)
    dates = dates_of(dag, settings.logical_date)
    hand_run = HandRun(
        run_id=settings.run_id or dates.run_id,
        dates=dates,
        conf={**(settings.conf or {}), **_declared(settings.params, dag, found)},
        map_index=settings.map_index,
    )
    task = _with_options(rendered(found, hand_run), settings)
    job = task.job(f"{task.dag_id}.{task.task_id}")
    click.echo(
        f"{job.name} by hand: run {hand_run.run_id}, {dates}; no callbacks, no alerts, Airflow is not told",
        err=True,
    )
    stop = Stop()
    with AirflowThread() as airflow:
        connections = AirflowConnections(airflow)
        file = _file(task, job, hand_run, settings, connections)
        with file.held(), Interrupts(stop):
            try:
                return _go(
                    task, job, hand_run, file=file, stop=stop, settings=settings, connections=connections
                )
            except StoppedError as stopped:
                legs.say_how_to_go_on(stopped)
                return STOPPED


def _declared(params: Mapping[str, Any], dag: DAG, task: Task) -> Mapping[str, Any]:
    """Refuse a param that nobody declared: Airflow would take the typo for a new one."""
    declared = {*dag.params, *(task.params or ())}
    for name in params:
        if name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise UsageError(f"--param {name}: DAG {dag.dag_id!r} has no such param (known: {known})")
    return params


def _with_options(task: BatchkitOperator, settings: RunOptions) -> BatchkitOperator:
    """Let what was typed here win over what the DAG file says."""
    if settings.local:
        task.local = True
    if settings.start_at is not None:
        task.start_at = settings.start_at
    if settings.plan:
        task.plan_only = True
    return task


def _go(
    task: BatchkitOperator,
    job: Job,
    hand_run: HandRun,
    *,
    file: CheckpointFile,
    stop: Stop,
    settings: RunOptions,
    connections: Connections,
) -> int:
    from airflow_batchkit.cli.progress import display
    from airflow_batchkit.hooks.switches import as_switch
    from airflow_batchkit.operators.settings import site_settings

    site = site_settings()
    listeners: list[Listener] = []
    pipelines = legs.pipelines(
        job,
        file,
        connections=connections,
        stop=stop,
        listeners=listeners,
        facts={"run_id": hand_run.run_id, "dates": str(hand_run.dates)},
        max_stuck_legs=site.max_stuck_legs,
        max_legs=site.max_legs,
    )
    restart = settings.restart or as_switch("restart", task.restart)
    identity = dataclasses.replace(
        legs.identity_of(
            file,
            job,
            restart=restart,
            run=_run_name(hand_run, shared=isinstance(file, TargetCheckpoint)),
            clear_marker=str(task.retries) if isinstance(file, TargetCheckpoint) else "",
        ),
        max_checkpoint_age=site.checkpoint_max_age,
    )
    if task.plan_only:
        plan = pipelines(identity).plan().to_dict()
        click.echo(msgspec.json.format(msgspec.json.encode(plan), indent=2))
        return DONE
    moving = sys.stderr.isatty() if settings.progress is None else settings.progress
    began_at = time.time()
    with display(stop, moving=moving, verbose=settings.verbose) as listener:
        listeners.append(listener)
        report = legs.run_legs(pipelines, identity, stop=stop, listener=listener)
    legs.show(report)
    if report.finished_at < began_at:
        click.echo("nothing was done: this run was complete already; --restart does it anew", err=True)
    return DONE


def _file(
    task: BatchkitOperator, job: Job, hand_run: HandRun, settings: RunOptions, connections: Connections
) -> CheckpointFile:
    from airflow_batchkit.cli.progress import LOG
    from airflow_batchkit.operators.identity import run_name

    if isinstance(settings.checkpoint, Path):
        return checkpoint_at(settings.checkpoint)
    if TARGET in {settings.checkpoint, task.checkpoint_store} and job.mode == "real":
        return checkpoint_beside(job, connections, LOG)
    name = f"{task.dag_id}.{task.task_id}.{_run_name(hand_run, shared=False) or hand_run.run_id}"
    return CheckpointFile(folder=default_folder(), name=run_name(name, hand_run.map_index))


def _run_name(hand_run: HandRun, *, shared: bool) -> str | None:
    """Name the run at its target; None where nothing tells it from the next.

    Another conf is another run: what the first one did says nothing about the second.

    :param shared: as Airflow names it, where both share the checkpoint; else unlike any run of Airflow's.
    """
    from airflow_batchkit.operators.identity import run_name, shared_run_name

    if hand_run.dates.logical_date is None:
        return None
    if shared:
        return shared_run_name(hand_run.dates.logical_date, conf=hand_run.conf, map_index=hand_run.map_index)
    conf = ""
    if hand_run.conf:
        conf = f"-{hashlib.sha256(msgspec.json.encode(hand_run.conf, order='sorted')).hexdigest()[:8]}"
    return f"by-hand-{run_name(hand_run.run_id, hand_run.map_index)}{conf}"
