"""``batchkit watch``: whether jobs run at all, asked from outside of Airflow, told once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec
from typing_extensions import override

from airflow_batchkit.cli.checkpoint_files import CheckpointFile, checkpoint_at, default_folder
from airflow_batchkit.cli.exits import DONE, FAILED
from airflow_batchkit.cli.watch_config import Config, Job, endpoint_of, read_config
from airflow_batchkit.engine.exceptions import PermanentError, TransientError, UsageError
from airflow_batchkit.notifications.destination import SlackDestination, chosen_destination
from airflow_batchkit.notifications.incident import Incident
from airflow_batchkit.notifications.ping import check_ping_url, ping
from airflow_batchkit.notifications.rendering import headline
from airflow_batchkit.watching.api import TOTAL_SECONDS, AirflowApi, AirflowEndpoint
from airflow_batchkit.watching.check import Check, Outcome, Teller
from airflow_batchkit.watching.rules import Place
from airflow_batchkit.watching.telling import ByReport, SlackTeller

_OF_A_JOB = (
    "dags",
    "tags",
    "owners",
    "grace",
    "max_queued",
    "max_age",
    "max_running",
    "allow_paused",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """The options that say how, not what."""

    config: Path | None
    state: Path | None
    ping_url: str | None
    timeout: float
    as_json: bool
    quiet: bool
    verbose: bool


@click.command()
@click.option("--airflow-url", metavar="URL", help="Base of Airflow's API server. Default: $AIRFLOW_API_URL.")
@click.option("--conn-id", metavar="ID", help="Credentials from AIRFLOW_CONN_<ID>.")
@click.option("--dag", "dags", multiple=True, metavar="ID|PATTERN", help="Which DAGs: ids, or * ? [a-z].")
@click.option("--tag", "tags", multiple=True, help="Only DAGs with one of these tags.")
@click.option("--owner", "owners", multiple=True, help="Only DAGs of one of these owners.")
@click.option("--grace", metavar="AGE", help="How late a run may be created. Default: 15m.")
@click.option("--max-queued", metavar="AGE", help="How long a run or task may wait to start. Default: 30m.")
@click.option("--max-age", metavar="AGE", help="How old the last success may be: 26h. Default: no limit.")
@click.option("--max-running", metavar="AGE", help="How long a run may take. Default: no limit.")
@click.option("--allow-paused", is_flag=True, help="A paused DAG is in order.")
@click.option(
    "--maintenance", multiple=True, metavar="WINDOW", help="Tell nothing new in it: 'Sun 02:00-04:00 UTC'."
)
@click.option("--any-import-error", is_flag=True, help="Tell of files without a watched DAG too.")
@click.option("--settle", metavar="AGE", help="What is over has to stay over so long. Default: 3m.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Several jobs, as TOML.")
@click.option("--environment", metavar="NAME", help="How messages call this Airflow. Default: its host.")
@click.option("--state", type=click.Path(path_type=Path), metavar="FILE", help="What is remembered.")
@click.option("--slack-channel", metavar="#NAME", help="Tell it there, through the Web API.")
@click.option("--slack-conn-id", metavar="ID", help="AIRFLOW_CONN_<ID>. Default: slack_api_default.")
@click.option("--slack-webhook-conn-id", metavar="ID", help="AIRFLOW_CONN_<ID>, instead of the other two.")
@click.option(
    "--ping-url",
    envvar="BATCHKIT_PING_URL",
    metavar="URL",
    help="Ask for it when nothing is wrong. Better: $BATCHKIT_PING_URL, which no list of processes shows.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=TOTAL_SECONDS,
    show_default=True,
    help="Seconds for all requests to Airflow together.",
)
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object, for machines.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Print only what is new or over: cron then mails just that."
)
@click.option("-v", "--verbose", is_flag=True, help="Show the stack trace of errors.")
def watch(**given: Any) -> int:
    """Say which jobs did not run, are late, stuck, failed, paused or gone, or that Airflow itself is down.

    Asks Airflow's REST API once and ends: for cron, a systemd timer or a Kubernetes CronJob, every five
    minutes. Each incident is told once, its end once, in Slack or on standard output. Changes nothing in
    Airflow. Credentials: AIRFLOW_API_TOKEN, or AIRFLOW_API_USERNAME and AIRFLOW_API_PASSWORD.

    \b
    Examples:
      batchkit watch --airflow-url https://airflow.example --tag nightly --max-age 26h
      batchkit watch --dag "export_*" --slack-channel "#data-alerts" --quiet
      batchkit watch --config watch.toml

    \b
    Exit codes: 0 nothing is wrong · 1 something is wrong, or could not be told · 2 wrong usage
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    settings = WatchOptions(**{name: given.pop(name) for name in WatchOptions.__slots__})
    config = _config(settings, given)
    if settings.ping_url:
        check_ping_url(settings.ping_url)
    endpoint = endpoint_of(config.airflow_url, config.conn_id)
    destination = _destination(config)
    file = _state_file(settings.state, config, endpoint, destination)
    api = AirflowApi(endpoint, total_seconds=settings.timeout)
    environment = config.environment or urlsplit(endpoint.url).netloc
    check = Check(
        api=api,
        expectations=config.expectations(),
        store=file.store,
        state_key=file.key,
        teller=ByReport() if destination is None else _SlackFromHere(destination),
        place=Place(url=endpoint.base, environment=environment),
    )
    try:
        with _held(file):
            outcome = check.run()
    except TransientError as error:
        click.echo(f"batchkit: nothing was checked: {error}", err=True)
        return FAILED
    _show(outcome, settings)
    if not outcome.all_is_well:
        return FAILED
    if settings.ping_url:
        _ping(settings.ping_url)
    return DONE


def _config(settings: WatchOptions, given: dict[str, Any]) -> Config:
    """Put options and file together; an option is stronger than the file's setting of the same name."""
    named = {name: value for name, value in given.items() if value not in (None, (), False)}
    if settings.config is None:
        job = {name: named.pop(name) for name in _OF_A_JOB if name in named}
        return Config(watch=(Job(**job),), **named)
    clash = [name for name in _OF_A_JOB if name in named]
    if clash:
        raise UsageError(
            f"--config says which DAGs to watch and how: --{clash[0].rstrip('s').replace('_', '-')} belongs "
            "into its [[watch]] tables"
        )
    return msgspec.structs.replace(read_config(settings.config), **named)


def _destination(config: Config) -> SlackDestination | None:
    if not (config.slack_channel or config.slack_conn_id or config.slack_webhook_conn_id):
        return None
    return chosen_destination(
        channel=config.slack_channel,
        slack_conn_id=config.slack_conn_id,
        slack_webhook_conn_id=config.slack_webhook_conn_id,
    )


def _state_file(
    chosen: Path | None, config: Config, endpoint: AirflowEndpoint, destination: SlackDestination | None
) -> CheckpointFile:
    """Return where the state is: by default a file for the same DAGs, in the same Airflow, told there."""
    if chosen is not None:
        return checkpoint_at(chosen)
    jobs = [(job.dags, job.tags, job.owners) for job in config.watch]
    what = msgspec.json.encode([endpoint.base, jobs, repr(destination)])
    digest = hashlib.sha256(what).hexdigest()[:16]
    return CheckpointFile(folder=default_folder().parent / "watch", name=f"watch-{digest}")


@contextmanager
def _held(file: CheckpointFile) -> Iterator[None]:
    """Keep a second watch with the same state away."""
    with ExitStack() as stack:
        try:
            stack.enter_context(file.held())
        except PermanentError as error:
            raise UsageError(
                f"the state cannot be kept in {file.folder}; choose a file with --state"
            ) from error
        yield


class _SlackFromHere(Teller):
    """Imports Airflow, for its Slack hooks, when there is something to send: not for each check."""

    def __init__(self, destination: SlackDestination) -> None:
        self._teller = SlackTeller(destination)

    @override
    def tell(self, incident: Incident) -> None:
        from airflow_batchkit.cli.run_library import airflow_as_a_library

        with airflow_as_a_library():
            self._teller.tell(incident)


def _show(outcome: Outcome, settings: WatchOptions) -> None:
    for note in outcome.notes:
        click.echo(f"batchkit: {note}", err=True)
    if outcome.not_sent is not None:
        click.echo(f"batchkit: {outcome.not_sent}; the next check tries again", err=True)
    if settings.as_json:
        click.echo(msgspec.json.encode(outcome.to_dict()))
        return
    for incident in outcome.begun:
        click.echo(f"new   {_line(incident)}")
    for incident in outcome.over:
        click.echo(f"over  {_line(incident)}")
    if settings.quiet:
        return
    said = set(outcome.begun)
    for entry in outcome.going_on:
        if entry.incident not in said:
            click.echo(f"still {_line(entry.incident)}")
    click.echo(_summary(outcome))


def _line(incident: Incident) -> str:
    facts: Iterable[str] = (f"{label}: {fact}" for label, fact in incident.facts if fact)
    about = " · ".join([*([incident.error_message] if incident.error_message else []), *facts])
    return " ".join(f"{headline(incident)} — {about}".removesuffix(" — ").split())


def _summary(outcome: Outcome) -> str:
    watched = "Airflow could not be asked"
    if outcome.dags is not None:
        watched = f"{_counted(outcome.dags, 'DAG')} watched"
    return f"{watched} · {_counted(len(outcome.going_on), 'incident')}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _ping(url: str) -> None:
    try:
        ping(url)
    except TransientError as error:
        # All is well here; whoever waits for the ping will speak up.
        click.echo(f"batchkit: {error}", err=True)
