"""``batchkit dead-letters``: look at records that were given up, run them again, or remove them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
import msgspec

from airflow_batchkit.cli.connections import EnvironmentConnections
from airflow_batchkit.cli.dead_letters_replay import replay
from airflow_batchkit.cli.exits import DONE
from airflow_batchkit.cli.options import age
from airflow_batchkit.cli.progress import LOG
from airflow_batchkit.cli.systems import store_at
from airflow_batchkit.cli.urls import parse
from airflow_batchkit.connectors.object_storage.letters_files import LetterSet, find_sets, read_lines
from airflow_batchkit.connectors.object_storage.letters_filter import LetterFilter
from airflow_batchkit.connectors.object_storage.letters_purge import purge as purge_set
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.source import OpenContext

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.store import ObjectStore

_HEADINGS = ("JOB", "RUN", "ERROR", "STAGE", "LETTERS", "FIRST", "LAST", "REPLAYS")

_job_option = click.option("--job", metavar="JOB", help="Only this job's. Default: all that share the place.")
_run_option = click.option("--run", metavar="RUN", help="Only this run's. Default: all.")


@dataclass(slots=True)
class _Group:
    """Letters of one run that tell of the same error."""

    letters: int = 0
    first: float = float("inf")
    last: float = 0.0
    replays: int = 0


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at records that were given up, run them again, or remove them.

    PLACE_URL is the URL that the job was given for its dead letters: s3://… or file:///…

    \b
    Examples:
      batchkit dead-letters list s3://lake/dead-letters
      batchkit dead-letters show s3://lake/dead-letters --error-type KeyError --limit 3
      batchkit dead-letters replay s3://lake/dead-letters s3://lake/orders
      batchkit dead-letters replay --task dags/orders.py export_orders --logical-date 2026-11-22
      batchkit dead-letters purge s3://lake/dead-letters --older-than 30d
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped


dead_letters.add_command(replay)


@dead_letters.command("list")
@click.argument("place_url")
@_job_option
@_run_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, for machines.")
def list_letters(place_url: str, *, job: str | None, run: str | None, as_json: bool) -> int:
    """Count the letters of a place, by run and kind of error.

    Letters of a run that has not ended, or failed, are not listed: that run goes on with them.

    \b
    Examples:
      batchkit dead-letters list s3://lake/dead-letters
      batchkit dead-letters list file:///data/dead-letters --json
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    with _place(place_url) as store:
        rows = [row for found in find_sets(store, job=job, run=run) for row in _rows(store, found)]
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return DONE
    if not rows:
        click.echo(f"no dead letters at {place_url}")
        return DONE
    cells = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADINGS))]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return DONE


@dead_letters.command()
@click.argument("place_url")
@_job_option
@_run_option
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only of this record. May be repeated.")
@click.option("--error-type", "error_types", multiple=True, metavar="TYPE", help="Only this kind of error.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many.")
@click.option("--records", is_flag=True, help="With the records' content, which is data.")
def show(
    place_url: str,
    *,
    job: str | None,
    run: str | None,
    ids: Sequence[str],
    error_types: Sequence[str],
    limit: int,
    records: bool,
) -> int:
    """Print letters in full, as JSON, one per paragraph; without the records' content unless asked for.

    \b
    Examples:
      batchkit dead-letters show s3://lake/dead-letters --limit 3
      batchkit dead-letters show s3://lake/dead-letters --id 4711 --records
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    only = LetterFilter(ids=ids, error_types=error_types)
    with _place(place_url) as store:
        for found in find_sets(store, job=job, run=run):
            for line in read_lines(store, found):
                if not only.matches(line.letter):
                    continue
                if limit == 0:
                    click.echo("there are more; see --limit", err=True)
                    return DONE
                limit -= 1
                fields = msgspec.json.decode(line.raw, type=dict[str, msgspec.Raw])
                if not records:
                    del fields["record"]
                click.echo(msgspec.json.format(msgspec.json.encode(fields), indent=2).decode())
    return DONE


@dead_letters.command()
@click.argument("place_url")
@_job_option
@_run_option
@click.option("--older-than", callback=age, metavar="AGE", help="Given up longer ago: 30d, 12h, 30m.")
@click.option("--all", "everything", is_flag=True, help="All letters.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(
    place_url: str,
    *,
    job: str | None,
    run: str | None,
    older_than: timedelta | None,
    everything: bool,
    yes: bool,
) -> int:
    """Remove letters for good, with the records in them.

    \b
    Examples:
      batchkit dead-letters purge s3://lake/dead-letters --older-than 30d
      batchkit dead-letters purge s3://lake/dead-letters --run manual__2026-11-22 --all --yes
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    if everything == (older_than is not None):
        raise click.UsageError("say what to remove: either --older-than AGE or --all")
    before = None if older_than is None else time.time() - older_than.total_seconds()
    with _place(place_url) as store:
        chosen = []
        for found in find_sets(store, job=job, run=run):
            letters = sum(before is None or line.letter.at < before for line in read_lines(store, found))
            if letters or everything:
                chosen.append(found)
                click.echo(f"{found.head.job}  {found.head.run}  {letters:,} of {found.records:,} letters")
        if not chosen:
            click.echo("nothing to remove")
            return DONE
        if not yes:
            click.confirm("remove these letters, and the records in them, for good?", abort=True)
        removed = sum(purge_set(store, found, before=before) for found in chosen)
    click.echo(f"removed {removed:,} letters of {len(chosen):,} runs")
    return DONE


@contextmanager
def _place(url: str) -> Iterator[ObjectStore]:
    context = OpenContext(
        connections=EnvironmentConnections(), timeouts=Timeouts(), now=datetime.now(tz=UTC), log=LOG
    )
    with closing(store_at(parse(url), context, what="dead-letters")) as store:
        store.check()
        yield store


def _rows(store: ObjectStore, found: LetterSet) -> Iterator[dict[str, Any]]:
    groups: dict[tuple[str, str], _Group] = {}
    for line in read_lines(store, found):
        letter = line.letter
        group = groups.setdefault((letter.error_type, letter.stage), _Group())
        group.letters += 1
        group.first = min(group.first, letter.at if letter.first_at is None else letter.first_at)
        group.last = max(group.last, letter.at)
        group.replays = max(group.replays, letter.replays)
    for (error_type, stage), group in sorted(groups.items()):
        yield {
            "job": found.head.job,
            "run": found.head.run,
            "error_type": error_type,
            "stage": stage,
            "letters": group.letters,
            "first_at": group.first,
            "last_at": group.last,
            "replays": group.replays,
        }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["job"],
        row["run"],
        row["error_type"],
        row["stage"],
        f"{row['letters']:,}",
        _moment(row["first_at"]),
        _moment(row["last_at"]),
        str(row["replays"]),
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")
