"""``batchkit dead-letters replay``: records that were given up, through the same transform and sink again."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from airflow_batchkit.cli import legs, options, run_options
from airflow_batchkit.cli.checkpoint_files import CheckpointFile, default_folder
from airflow_batchkit.cli.exits import DONE, STOPPED
from airflow_batchkit.cli.interrupts import Interrupts
from airflow_batchkit.cli.systems import dead_letters_at, sink_at
from airflow_batchkit.cli.urls import parse
from airflow_batchkit.connectors.letters import DeadLetterSource, LetterFilter
from airflow_batchkit.connectors.letters.place import replayable
from airflow_batchkit.connectors.letters.replay import replay_of
from airflow_batchkit.engine.exceptions import StoppedError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.memory import settle_process
from airflow_batchkit.engine.stop import Stop

if TYPE_CHECKING:
    from airflow_batchkit.engine.connections import Connections
    from airflow_batchkit.engine.policies import RateLimit
    from airflow_batchkit.engine.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """The options as they were given, each checked by itself."""

    dag_id: str | None
    logical_date: date | None
    conf: Mapping[str, Any] | None
    map_index: int | None
    job: str | None
    run: str | None
    ids: tuple[str, ...]
    error_types: tuple[str, ...]
    since: str | None
    until: str | None
    rate: RateLimit | None
    local: bool
    restart: bool
    progress: bool | None
    verbose: bool

    @property
    def only(self) -> LetterFilter:
        """Which letters."""
        return LetterFilter(ids=self.ids, error_types=self.error_types, since=self.since, until=self.until)


@click.command()
@click.argument("place_url", required=False)
@click.argument("sink_url", required=False)
@click.option(
    "--task",
    nargs=2,
    default=None,
    metavar="DAG_FILE TASK_ID",
    help="Place, sink and transform of this task, instead of the URLs.",
)
@click.option("--dag-id", metavar="DAG", help="Which DAG, where several in the file have such a task.")
@click.option(
    "--logical-date", callback=run_options.moment, metavar="DATE", help="For --task: as for batchkit run."
)
@click.option(
    "--conf", callback=options.json_object, metavar="JSON|@FILE", help="For --task: the run's configuration."
)
@click.option("--map-index", type=click.IntRange(min=0), metavar="N", help="For --task: which instance.")
@click.option("--job", metavar="JOB", help="Only letters of this job.")
@click.option("--run", metavar="RUN", help="Only letters of this run, as `list` names it.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only this record. May be repeated.")
@click.option("--error-type", "error_types", multiple=True, metavar="TYPE", help="Only this kind of error.")
@click.option("--since", metavar="TIME", help="Only given up at this time or later: 2026-11-22T03:00 (UTC).")
@click.option("--until", metavar="TIME", help="Only given up before this time.")
@click.option("--rate", callback=options.rate, metavar="RATE", help="5000 (records a second) or 20MiB/s.")
@click.option("--local", is_flag=True, help="LOCAL mode: read and transform the letters, write nothing.")
@click.option("--restart", is_flag=True, help="Begin anew, whatever an unfinished replay saved.")
@click.option("--progress/--no-progress", default=None, help="A moving line. Default: only on a terminal.")
@click.option("-v", "--verbose", is_flag=True, help="Show each query, and the stack trace of errors.")
def replay(place_url: str | None, sink_url: str | None, *, task: tuple[str, str] | None, **given: Any) -> int:
    """Run the letters of one run again: what succeeds leaves the place, what fails again stays there.

    The output at SINK_URL is extended in one step and stays whole; running it twice changes nothing.

    \b
    Examples:
      batchkit dead-letters replay s3://lake/dead-letters s3://lake/orders --error-type KeyError
      batchkit dead-letters replay --task dags/orders.py export_orders --logical-date 2026-11-22

    \b
    Exit codes: 0 done, or nothing to do · 1 failed · 2 wrong usage · 4 stopped and can be resumed
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    settle_process()
    settings = ReplayOptions(**given)
    if (task is None) == (place_url is None or sink_url is None):
        raise click.UsageError("give either PLACE_URL and SINK_URL, or --task DAG_FILE TASK_ID")
    with _job_of(task, place_url, sink_url, settings) as (job, connections):
        return _replay(job, connections, settings)


@contextmanager
def _job_of(
    task: tuple[str, str] | None, place_url: str | None, sink_url: str | None, settings: ReplayOptions
) -> Iterator[tuple[Job, Connections]]:
    """Give the replay, and what makes its clients, for a ``with`` block."""
    if task is not None:
        with _job_of_task(Path(task[0]), task[1], settings) as (job, connections):
            yield _replay_of(job, settings), connections
        return
    from airflow_batchkit.cli.connections import EnvironmentConnections

    place, sink = parse(str(place_url)), parse(str(sink_url))
    letters = dead_letters_at(place)
    job = Job(
        name=f"replay {place.url} {sink.url}",
        source=DeadLetterSource(letters),  # stands in for the source, which only the job knows
        sink=sink_at(sink, compression=None),
        dead_letters=letters,
    )
    yield _replay_of(job, settings), EnvironmentConnections()


@contextmanager
def _job_of_task(dag_file: Path, task_id: str, settings: ReplayOptions) -> Iterator[tuple[Job, Connections]]:
    from airflow_batchkit.cli.run_library import airflow_as_a_library

    with airflow_as_a_library():
        from airflow_batchkit.cli.run_dag_file import find_task
        from airflow_batchkit.cli.run_dates import dates_of
        from airflow_batchkit.cli.run_rendering import HandRun, rendered
        from airflow_batchkit.cli.run_supervisor import supervised
        from airflow_batchkit.hooks.airflow_thread import AirflowThread
        from airflow_batchkit.hooks.connections import AirflowConnections

        with supervised({}), AirflowThread() as airflow:
            dag, found = find_task(dag_file, task_id, dag_id=settings.dag_id)
            dates = dates_of(dag, settings.logical_date)
            ready = rendered(
                found,
                HandRun(
                    run_id=dates.run_id,
                    dates=dates,
                    conf=settings.conf or {},
                    map_index=-1 if settings.map_index is None else settings.map_index,
                ),
            )
            yield ready.job(f"replay {ready.dag_id}.{ready.task_id}"), AirflowConnections(airflow)


def _replay_of(job: Job, settings: ReplayOptions) -> Job:
    place = replayable(job.dead_letters, what=job.name)
    source = DeadLetterSource(place, only=settings.only, job=settings.job, run=settings.run)
    job = dataclasses.replace(job, local=job.local or settings.local, throttle=settings.rate or job.throttle)
    return replay_of(job, source)


def _replay(job: Job, connections: Connections, settings: ReplayOptions) -> int:
    what = hashlib.sha256(f"{job.name} {job.source.serialize()}".encode()).hexdigest()[:8]
    file = CheckpointFile(folder=default_folder(), name=f"replay-{what}")
    stop = Stop()
    with file.held(), Interrupts(stop):
        identity = legs.identity_of(file, job, restart=settings.restart)
        try:
            report = _run(job, identity, connections, file, stop=stop, settings=settings)
        except StoppedError as stopped:
            legs.say_how_to_go_on(stopped)
            return STOPPED
    if report.counts["read"] == 0:
        click.echo("nothing to do: there are no letters to replay")
    else:
        legs.show(report)
    return DONE


def _run(
    job: Job,
    identity: RunIdentity,
    connections: Connections,
    file: CheckpointFile,
    *,
    stop: Stop,
    settings: ReplayOptions,
) -> Report:
    from airflow_batchkit.cli.progress import display

    moving = sys.stderr.isatty() if settings.progress is None else settings.progress
    with display(stop, moving=moving, verbose=settings.verbose, doing="replaying") as listener:
        pipelines = legs.pipelines(job, file, connections=connections, stop=stop, listeners=[listener])
        return legs.run_legs(pipelines, identity, stop=stop, listener=listener)
