"""``batchkit copy``: any source to any sink, on the same engine as the operators, without Airflow."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from airflow_batchkit.cli import legs, options
from airflow_batchkit.cli.checkpoint_files import (
    CheckpointFile,
    TargetCheckpoint,
    checkpoint_beside,
    checkpoint_of_copy,
)
from airflow_batchkit.cli.exits import DONE, STOPPED
from airflow_batchkit.cli.interrupts import Interrupts
from airflow_batchkit.cli.systems import dead_letters_at, sink_at, source_at
from airflow_batchkit.cli.urls import parse
from airflow_batchkit.engine.exceptions import StoppedError, UsageError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.memory import settle_process
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget, RateLimit
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.stores.target import TARGET

if TYPE_CHECKING:
    from airflow_batchkit.engine.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """The options as they were given, each checked by itself."""

    local: bool
    restart: bool
    start_at: str | None
    max_records_per_batch: int | None
    max_bytes_per_batch: int | None
    rate: RateLimit | None
    error_budget: ErrorBudget
    dead_letters: str | None
    checkpoint: Path | str | None
    query: Mapping[str, Any] | None
    compression: str
    progress: bool | None
    verbose: bool


@click.command()
@click.argument("source_url")
@click.argument("sink_url")
@click.option("--local", is_flag=True, help="LOCAL mode: read everything, write nothing.")
@click.option("--restart", is_flag=True, help="Begin anew, whatever progress was saved.")
@click.option(
    "--start-at", metavar="CURSOR|DATE", help="Copy a part: begin here, as the source understands it."
)
@click.option(
    "--max-records-per-batch", type=click.IntRange(min=1), metavar="N", help="Default: the sink's choice."
)
@click.option(
    "--max-bytes-per-batch", callback=options.byte_size, metavar="SIZE", help="8MiB, 10MB, 8388608."
)
@click.option("--rate", callback=options.rate, metavar="RATE", help="5000 (records a second) or 20MiB/s.")
@click.option(
    "--error-budget",
    callback=options.error_budget,
    metavar="N|N%|CLASS=N",
    help="Records that may be given up before the run fails, in all or of one error class. Default: 0.",
)
@click.option("--dead-letters", metavar="URL", help="Where records that are given up are kept.")
@click.option(
    "--checkpoint",
    callback=options.checkpoint,
    metavar="FILE|target",
    help="Keep progress in this file, or beside the output, where a task with checkpoint_store='target' "
    "keeps it too. Default: a file below ~/.local/state/airflow-batchkit/checkpoints.",
)
@click.option("--query", callback=options.json_object, metavar="JSON|@FILE", help='The body of "query".')
@click.option("--compression", type=click.Choice(["gzip", "zstd", "none"]), default="gzip", show_default=True)
@click.option("--progress/--no-progress", default=None, help="A moving line. Default: only on a terminal.")
@click.option("-v", "--verbose", is_flag=True, help="Show each query, and the stack trace of errors.")
def copy(source_url: str, sink_url: str, **given: Any) -> int:
    """Copy all records from SOURCE_URL to SINK_URL, in batches, and go on by itself after a stop or a kill.

    \b
    URLs:
      elasticsearch+http://host:9200/index[,index2]     source
      elasticsearch+https://host:9200/index[,index2]    source
      sqlite:///path/file.db?table=orders               source; also &key=day,id and &where=CONDITION
      postgresql://host:5432/database?table=orders      source; also &key= and &where=, table=schema.orders
      s3://bucket/prefix                                sink; endpoint and credentials as for boto3;
            also ?endpoint_url=… &region_name=… &addressing_style=path|virtual, &storage_class=… &acl=…
            &server_side_encryption=… &sse_kms_key_id=… &bucket_key_enabled=true &tags=key=value,key=value
            &expected_bucket_owner=… &requester_pays=true &multipart_bytes=64MiB
      file:///path/folder                               sink

    \b
    Credentials never stand in a URL:
      BATCHKIT_ELASTICSEARCH_API_KEY, or …_USERNAME and …_PASSWORD, …_CA_CERTS, …_VERIFY_CERTS
      AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, … as for boto3
      PGUSER, PGPASSWORD, PGPASSFILE, PGSSLMODE, PGSSLROOTCERT, … as for libpq
      or AIRFLOW_CONN_<ID> with ?conn_id=<id> in the URL

    \b
    Examples:
      batchkit copy elasticsearch+http://localhost:9200/orders s3://lake/orders
      batchkit copy elasticsearch+https://es:9200/orders file:///data/orders \\
          --query '{"range": {"day": {"gte": "2026-11-01", "lt": "2026-11-02"}}}' --rate 5000
      batchkit copy "sqlite:///data/shop.db?table=orders" file:///data/orders \\
          --error-budget 0.1% --dead-letters file:///data/orders-dead-letters

    \b
    Exit codes: 0 done · 1 failed · 2 wrong usage · 3 error budget exceeded · 4 stopped and can be resumed
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    settle_process()
    settings = CopyOptions(**given)
    job = _job(source_url, sink_url, settings)
    file = _file(source_url, sink_url, job, settings)
    stop = Stop()
    with file.held(), Interrupts(stop):
        if isinstance(file, TargetCheckpoint):
            job = legs.job_of_run(file, job)
        identity = legs.identity_of(file, job, restart=settings.restart)
        try:
            report = _run(job, identity, file, stop, settings)
        except StoppedError as stopped:
            legs.say_how_to_go_on(stopped)
            return STOPPED
    legs.show(report)
    return DONE


def _job(source_url: str, sink_url: str, settings: CopyOptions) -> Job:
    source, sink = parse(source_url), parse(sink_url)
    if settings.error_budget.allows_any and settings.dead_letters is None and not settings.local:
        raise UsageError(
            "--error-budget lets records be given up: say where to keep them with --dead-letters URL"
        )
    return Job(
        name=f"copy {source.url} {sink.url}",
        source=source_at(source, query=settings.query),
        sink=sink_at(sink, compression=None if settings.compression == "none" else settings.compression),
        batch=BatchPolicy(max_records=settings.max_records_per_batch, max_bytes=settings.max_bytes_per_batch),
        throttle=settings.rate,
        error_budget=settings.error_budget,
        dead_letters=None
        if settings.dead_letters is None
        else dead_letters_at(parse(settings.dead_letters), create=True),
        local=settings.local,
        start_at=settings.start_at,
    )


def _file(source_url: str, sink_url: str, job: Job, settings: CopyOptions) -> CheckpointFile:
    kept = settings.checkpoint
    if kept == TARGET and job.mode == "real":
        from airflow_batchkit.cli.connections import EnvironmentConnections
        from airflow_batchkit.cli.progress import LOG

        return checkpoint_beside(job, EnvironmentConnections(), LOG)
    file = kept if isinstance(kept, Path) else None
    return checkpoint_of_copy(parse(source_url), parse(sink_url), query=settings.query, file=file)


def _run(job: Job, identity: RunIdentity, file: CheckpointFile, stop: Stop, settings: CopyOptions) -> Report:
    from airflow_batchkit.cli.connections import EnvironmentConnections
    from airflow_batchkit.cli.progress import display

    moving = sys.stderr.isatty() if settings.progress is None else settings.progress
    with display(stop, moving=moving, verbose=settings.verbose) as listener:
        pipelines = legs.pipelines(
            job, file, connections=EnvironmentConnections(), stop=stop, listeners=[listener]
        )
        return legs.run_legs(pipelines, identity, stop=stop, listener=listener)
