"""``batchkit checkpoints``: look at saved progress, and remove it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from airflow_batchkit.cli.checkpoint_files import default_folder
from airflow_batchkit.cli.checkpoint_places import FolderPlace, Place, target_place
from airflow_batchkit.cli.exits import DONE
from airflow_batchkit.cli.options import age
from airflow_batchkit.cli.tables import print_table
from airflow_batchkit.engine.checkpoint import Checkpoint
from airflow_batchkit.engine.exceptions import CannotResumeError, UsageError

C = TypeVar("C", bound=Callable[..., int])

_HEADINGS = ("JOB", "RUN", "MODE", "STATUS", "READ", "SAVED AT", "AGE")


def _place_options(command: C) -> C:
    file = click.option(
        "--checkpoint",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="This file, where `--checkpoint FILE` was used. Default: all in the default folder.",
    )
    target = click.option(
        "--target",
        metavar="URL",
        help="What lies beside the output at this s3:// or file:// URL, where `--checkpoint target` or "
        "checkpoint_store='target' was used.",
    )
    return target(file(command))


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A saved checkpoint.

    :param name: its name in its place.
    :param checkpoint: None when it is damaged.
    :param saved_at: seconds since the epoch; 0 where nobody knows.
    """

    name: str
    checkpoint: Checkpoint | None
    saved_at: float

    @property
    def age(self) -> timedelta:
        """Time since it was saved."""
        return timedelta(seconds=max(0.0, time.time() - self.saved_at))


@click.group()
def checkpoints() -> None:
    """Look at the progress that `batchkit copy` and `batchkit run` saved, and remove it.

    \b
    Examples:
      batchkit checkpoints list
      batchkit checkpoints show orders-to-lake-orders-1f2e3d4c
      batchkit checkpoints show --target s3://lake/orders
      batchkit checkpoints clear --older-than 7d
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped


@checkpoints.command("list")
@_place_options
def list_saved(file: Path | None, target: str | None) -> int:
    """List saved checkpoints.

    \b
    Examples:
      batchkit checkpoints list
      batchkit checkpoints list --checkpoint /var/lib/orders.checkpoint
      batchkit checkpoints list --target s3://lake/orders
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    with _place(file, target) as place:
        found = [_load(place, name) for name in place.names()]
    if not found:
        click.echo(f"no checkpoints in {place.description}")
        return DONE
    print_table(_HEADINGS, map(_row, found))
    return DONE


@checkpoints.command()
@click.argument("name", required=False)
@_place_options
def show(name: str | None, file: Path | None, target: str | None) -> int:
    """Print one checkpoint as JSON.

    \b
    Examples:
      batchkit checkpoints show orders-to-lake-orders-1f2e3d4c
      batchkit checkpoints show --checkpoint /var/lib/orders.checkpoint
      batchkit checkpoints show --target s3://lake/orders
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    with _place(file, target) as place:
        if (name is None and file is None and target is None) or (name is not None and file is not None):
            raise click.UsageError(
                "give either a NAME (see: batchkit checkpoints list), --checkpoint FILE or --target URL"
            )
        checkpoint = place.read(_chosen(place, [] if name is None else [name])[0])
    click.echo(msgspec.json.format(msgspec.json.encode(checkpoint), indent=2).decode())
    return DONE


@checkpoints.command()
@click.argument("names", nargs=-1)
@_place_options
@click.option(
    "--older-than", callback=age, metavar="AGE", help="All that were saved longer ago: 7d, 12h, 30m."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(
    names: Sequence[str], file: Path | None, target: str | None, older_than: timedelta | None, *, yes: bool
) -> int:
    """Remove checkpoints: the next copy or run begins at the beginning, a running one stops.

    \b
    Examples:
      batchkit checkpoints clear orders-to-lake-orders-1f2e3d4c
      batchkit checkpoints clear --older-than 7d --yes
      batchkit checkpoints clear --target s3://lake/orders
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    if older_than is None and not names and file is None and target is None:
        raise click.UsageError(
            "say what to remove: a NAME, --older-than AGE, --checkpoint FILE or --target URL"
        )
    with _place(file, target) as place:
        chosen = [_load(place, name) for name in (_chosen(place, names) if names else place.names())]
        if older_than is not None:
            chosen = [saved for saved in chosen if saved.age > older_than]
        if not chosen:
            click.echo("nothing to remove")
            return DONE
        for saved in chosen:
            click.echo(f"{saved.name}  {_status(saved)}")
        if not yes:
            click.confirm(f"remove {len(chosen)} of these for good?", abort=True)
        for saved in chosen:
            place.remove(saved.name)
    click.echo(f"removed {len(chosen)}")
    return DONE


@contextmanager
def _place(file: Path | None, target: str | None) -> Iterator[Place]:
    if file is not None and target is not None:
        raise click.UsageError("give either --checkpoint FILE or --target URL")
    if target is not None:
        yield from target_place(target)
    elif file is not None:
        yield FolderPlace(folder=file.parent, only=file.name)
    else:
        yield FolderPlace(folder=default_folder())


def _chosen(place: Place, names: Sequence[str]) -> list[str]:
    """Return the names that are meant, all where none was given; refuse what is not there."""
    there = place.names()
    for name in names:
        if name not in there:
            raise UsageError(f"no checkpoint {name!r} in {place.description}; see: batchkit checkpoints list")
    if not there:
        raise UsageError(f"no checkpoints in {place.description}")
    return list(names) or there


def _load(place: Place, name: str) -> Saved:
    try:
        checkpoint = place.read(name)
    except CannotResumeError:
        return Saved(name=name, checkpoint=None, saved_at=place.saved_at(name))
    return Saved(name=name, checkpoint=checkpoint, saved_at=checkpoint.saved_at)


def _status(saved: Saved) -> str:
    if saved.checkpoint is None:
        return "damaged"
    return f"{saved.checkpoint.status}, {saved.checkpoint.counts.read:,} records read"


def _row(saved: Saved) -> tuple[str, ...]:
    checkpoint = saved.checkpoint
    if checkpoint is None:
        return (saved.name, "?", "?", "damaged", "?", "?", _age_text(saved.age) if saved.saved_at else "?")
    saved_at = datetime.fromtimestamp(checkpoint.saved_at).astimezone()
    return (
        saved.name,
        checkpoint.run,
        checkpoint.mode,
        checkpoint.status,
        f"{checkpoint.counts.read:,}",
        saved_at.isoformat(sep=" ", timespec="seconds"),
        _age_text(saved.age),
    )


def _age_text(elapsed: timedelta) -> str:
    seconds = int(elapsed.total_seconds())
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
