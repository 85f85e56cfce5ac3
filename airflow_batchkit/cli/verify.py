"""``batchkit verify``: whether an export is whole, untouched and readable, told by one exit code."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from typing_extensions import override

from airflow_batchkit.cli import options
from airflow_batchkit.cli.connections import EnvironmentConnections
from airflow_batchkit.cli.exits import DAMAGED, DIFFERS, DONE, FAILED, STOPPED
from airflow_batchkit.cli.interrupts import Interrupts
from airflow_batchkit.cli.progress import LOG, display
from airflow_batchkit.cli.systems import elasticsearch_name, store_at
from airflow_batchkit.cli.urls import Location, parse
from airflow_batchkit.connectors.object_storage.verify.comparison import Compared, Comparison
from airflow_batchkit.connectors.object_storage.verify.letters import verify_letters
from airflow_batchkit.connectors.object_storage.verify.output import Onlooker, OutputVerifier
from airflow_batchkit.engine.exceptions import StoppedError, TransientError, UsageError
from airflow_batchkit.engine.memory import settle_process
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.progress import Meter, Progress, eta
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.engine.types import Total

if TYPE_CHECKING:
    from airflow_batchkit.connectors.elasticsearch.live import LiveIndex
    from airflow_batchkit.connectors.object_storage.verify.declared import OutputHead
    from airflow_batchkit.connectors.object_storage.verify.objects import ObjectFound
    from airflow_batchkit.connectors.object_storage.verify.verification import Verification
    from airflow_batchkit.engine.listener import Listener

_SECONDS_BETWEEN_LINES = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """The options as they were given, each checked by itself."""

    ids: bool
    dead_letters: str | None
    against: str | None
    query: Mapping[str, Any] | None
    sample: int
    seed: int
    as_json: bool
    progress: bool | None
    verbose: bool


@click.command()
@click.argument("url")
@click.option(
    "--ids/--no-ids",
    default=True,
    help="Look for ids that come twice. Takes 8 bytes per record in the temporary folder. Default: yes.",
)
@click.option(
    "--dead-letters", metavar="URL", help="Read the dead letters too; the URL that `copy` was given."
)
@click.option("--against", metavar="URL", help="Compare with the index as it is now: elasticsearch+https://…")
@click.option(
    "--query", callback=options.json_object, metavar="JSON|@FILE", help="The export's, for --against."
)
@click.option(
    "--sample",
    type=click.IntRange(0, 100_000),
    default=100,
    show_default=True,
    help="Documents to compare byte for byte, for --against.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which documents, for --against.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object, for machines.")
@click.option("--progress/--no-progress", default=None, help="A moving line. Default: only on a terminal.")
@click.option("-v", "--verbose", is_flag=True, help="Show each query, and the stack trace of errors.")
def verify(url: str, **given: Any) -> int:
    """Say whether the export at URL is whole, untouched and readable. Changes nothing.

    Reads every object that manifest.json names: size, sha256, decompression, each line, the counts, and ids
    that come twice; then _SUCCESS, and what else lies there.

    \b
    Examples:
      batchkit verify s3://lake/orders/ds=2026-03-01
      batchkit verify file:///data/orders --json
      batchkit verify s3://lake/orders --against elasticsearch+https://es:9200/orders --sample 1000

    \b
    Exit codes: 0 whole · 1 could not be verified · 2 wrong usage, or no export there · 4 interrupted ·
                5 damaged · 6 whole, but the live index differs (--against)
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    settle_process()
    settings = VerifyOptions(**given)
    if settings.query is not None and settings.against is None:
        raise UsageError(
            "--query says which documents of the index to count: give the index with --against URL"
        )
    stop = Stop()
    moving = sys.stderr.isatty() if settings.progress is None else settings.progress
    try:
        with (
            Interrupts(stop, afterwards="nothing was changed, the same command begins anew"),
            display(stop, moving=moving, verbose=settings.verbose, doing="verifying") as listener,
        ):
            found, compared = _verify(parse(url), settings, stop, listener)
    except StoppedError as stopped:
        click.echo(f"batchkit: {stopped}; nothing was changed, the same command begins anew", err=True)
        return STOPPED
    except TransientError as error:
        LOG.debug("stack trace", exc_info=error)
        click.echo(
            f"batchkit: cannot tell whether it is whole: {error}; run the same command again", err=True
        )
        return FAILED
    _show(found, compared, as_json=settings.as_json)
    if not found.whole:
        return DAMAGED
    return DIFFERS if compared is not None and compared.differences else DONE


def _verify(
    location: Location, settings: VerifyOptions, stop: Stop, listener: Listener
) -> tuple[Verification, Compared | None]:
    timeouts = Timeouts()
    context = OpenContext(
        connections=EnvironmentConnections(), timeouts=timeouts, now=datetime.now(tz=UTC), log=LOG
    )
    seconds = timeouts.batch.total_seconds()
    with (
        closing(store_at(location, context, what="verify")) as store,
        _comparison(settings, context) as comparison,
    ):
        onlookers: list[Onlooker] = [_Progress(listener)]
        if comparison is not None:
            onlookers.append(comparison)
        found = OutputVerifier(
            store,
            ids=settings.ids,
            seconds=seconds,
            stop_asked=lambda: stop.asked,
            onlookers=onlookers,
            log=LOG,
        ).run()
        if settings.dead_letters is not None:
            with closing(store_at(parse(settings.dead_letters), context, what="--dead-letters")) as place:
                verify_letters(place, found, seconds=seconds, stop_asked=lambda: stop.asked)
        readable = comparison is not None and found.head is not None
        return found, comparison.finish(found.changed) if comparison is not None and readable else None


@contextmanager
def _comparison(settings: VerifyOptions, context: OpenContext) -> Iterator[Comparison | None]:
    """Prepare the comparison with the live index, if one was asked for, for a ``with`` block."""
    if settings.against is None:
        yield None
        return
    location = parse(settings.against)
    if not location.scheme.startswith("elasticsearch"):
        raise UsageError("--against: give an Elasticsearch index, elasticsearch+https://host:9200/index")
    from airflow_batchkit.connectors.elasticsearch.rest import Rest

    client = context.connections.client(
        "elasticsearch", elasticsearch_name(location), timeouts=context.timeouts
    )
    with closing(Rest(client, timeouts=context.timeouts, log=LOG)) as rest:

        def connect(head: OutputHead) -> LiveIndex:
            from airflow_batchkit.connectors.elasticsearch.live import LiveIndex
            from airflow_batchkit.connectors.elasticsearch.query import check_query, resolved

            check_query(settings.query)
            # As the export resolved it: date math with now means the start of its run.
            query = resolved(settings.query, datetime.fromtimestamp(head.started_at, tz=UTC))
            return LiveIndex(rest, location.path.split(","), query)

        yield Comparison(connect, sample=settings.sample, seed=settings.seed)


class _Progress(Onlooker):
    """Tells a listener how far the reading is, once a second."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._started = self._told = time.monotonic()
        self._meter = Meter(0)
        self._objects = self._records = self._bytes = 0
        self._of_objects = self._of_records = 0

    @override
    def begin(self, head: OutputHead) -> None:
        self._of_objects, self._of_records = head.total.parts, head.total.records

    @override
    def seen(self, found: ObjectFound) -> None:
        self._objects += 1
        self._records += found.records
        self._bytes += found.part.bytes
        now = time.monotonic()
        if now - self._told < _SECONDS_BETWEEN_LINES:
            return
        self._told = now
        total = Total(records=self._of_records)
        rate = self._meter.rate(now - self._started, self._records)
        progress = Progress(
            batches=self._objects,
            batches_total=self._of_objects,
            read=self._records,
            total=total,
            records_per_second=rate,
            dead_lettered=0,
            eta_seconds=eta(total, self._records, rate),
            active_seconds=now - self._started,
            throttled_seconds=0.0,
            bytes_read=self._bytes,
            cursor=found.part.key,
            unit="object",
        )
        self._listener.on_progress(progress)


def _show(found: Verification, compared: Compared | None, *, as_json: bool) -> None:
    if as_json:
        report = {**found.to_dict(), "live": None if compared is None else compared.to_dict()}
        click.echo(json.dumps(report))
        return
    verdict, *lines = found.lines()
    click.echo(click.style(verdict, bold=True, fg=None if found.whole else "red"))
    for line in [*lines, *(() if compared is None else compared.lines())]:
        click.echo(line)
