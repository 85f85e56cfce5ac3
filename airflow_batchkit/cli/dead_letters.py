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
from airflow_batchkit.cli.systems import dead_letters_at
from airflow_batchkit.cli.tables import print_table
from airflow_batchkit.cli.urls import parse
from airflow_batchkit.connectors.letters.filter import LetterFilter
from airflow_batchkit.connectors.letters.purge import purge as purge_set
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.source import OpenContext

if TYPE_CHECKING:
    from airflow_batchkit.connectors.letters.place import LetterSet, OpenLetters
    from airflow_batchkit.engine.dead_letters import DeadLetter

_HEADINGS = ("JOB", "RUN", "ERROR", "STAGE", "LETTERS", "FIRST", "LAST", "REPLAYS", "THE RUN")

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

    PLACE_URL is the place that the job was given for its dead letters: s3://…, file:///…,
    elasticsearch+https://host:port/index, sqlite:///path?table=… or postgresql://host/database?table=…

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

    Letters of a run that has not ended are not listed. Those of one that failed are: it goes on with them
    when it is cleared.

    \b
    Examples:
      batchkit dead-letters list s3://lake/dead-letters
      batchkit dead-letters list file:///data/dead-letters --json
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    with _place(place_url) as place:
        rows = [row for found in place.sets(job=job, run=run) for row in _rows(place, found)]
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return DONE
    if not rows:
        click.echo(f"no dead letters at {place_url}")
        return DONE
    print_table(_HEADINGS, map(_cells, rows))
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
    with _place(place_url) as place:
        for found in place.sets(job=job, run=run):
            for line in place.lines(found):
                if not only.matches(line.letter):
                    continue
                if limit == 0:
                    click.echo("there are more; see --limit", err=True)
                    return DONE
                limit -= 1
                click.echo(_text(line.letter, records=records))
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
    with _place(place_url) as place:
        chosen = []
        for found in place.sets(job=job, run=run):
            letters = sum(before is None or line.letter.at < before for line in place.lines(found))
            if letters or everything:
                chosen.append(found)
                click.echo(f"{found.job}  {found.run}  {letters:,} of {found.records:,} letters")
        if not chosen:
            click.echo("nothing to remove")
            return DONE
        if not yes:
            click.confirm("remove these letters, and the records in them, for good?", abort=True)
        removed = sum(purge_set(place, found, before=before) for found in chosen)
    click.echo(f"removed {removed:,} letters of {len(chosen):,} runs")
    return DONE


def _text(letter: DeadLetter, *, records: bool) -> str:
    fields = msgspec.structs.asdict(letter)
    known = {
        name: value for name, value in fields.items() if name != "record" and value not in (None, {}, "")
    }
    text = msgspec.json.format(msgspec.json.encode(known), indent=2).decode()
    # As it was kept: it may hold what no formatter takes for JSON.
    return f'{text[:-2]},\n  "record": {bytes(letter.record).decode()}\n}}' if records else text


@contextmanager
def _place(url: str) -> Iterator[OpenLetters]:
    context = OpenContext(
        connections=EnvironmentConnections(), timeouts=Timeouts(), now=datetime.now(tz=UTC), log=LOG
    )
    with closing(dead_letters_at(parse(url)).open_letters(context)) as place:
        place.check()
        yield place


def _rows(place: OpenLetters, found: LetterSet) -> Iterator[dict[str, Any]]:
    groups: dict[tuple[str, str], _Group] = {}
    for line in place.lines(found):
        letter = line.letter
        group = groups.setdefault((letter.error_type, letter.stage), _Group())
        group.letters += 1
        group.first = min(group.first, letter.at if letter.first_at is None else letter.first_at)
        group.last = max(group.last, letter.at)
        group.replays = max(group.replays, letter.replays)
    for (error_type, stage), group in sorted(groups.items()):
        yield {
            "job": found.job,
            "run": found.run,
            "error_type": error_type,
            "stage": stage,
            "letters": group.letters,
            "first_at": group.first,
            "last_at": group.last,
            "replays": group.replays,
            "complete": found.complete,
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
        "is complete" if row["complete"] else "has failed",
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")
