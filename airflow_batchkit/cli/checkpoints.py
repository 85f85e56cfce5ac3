"""``batchkit checkpoints``: look at saved progress, and remove it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import click
import msgspec

from airflow_batchkit.cli.checkpoint_files import default_folder, read_file, saved_in
from airflow_batchkit.cli.exits import DONE
from airflow_batchkit.cli.options import age
from airflow_batchkit.engine.checkpoint import Checkpoint
from airflow_batchkit.engine.exceptions import CannotResumeError, UsageError

_HEADINGS = ("JOB", "RUN", "MODE", "STATUS", "READ", "SAVED AT", "AGE")

_file_option = click.option(
    "--checkpoint",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="This file, where `--checkpoint FILE` was used. Default: all in the default folder.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint file and what is in it.

    :param path: the file.
    :param checkpoint: None when it is damaged.
    """

    path: Path
    checkpoint: Checkpoint | None

    @property
    def age(self) -> timedelta:
        """Time since it was saved."""
        saved_at = self.path.stat().st_mtime if self.checkpoint is None else self.checkpoint.saved_at
        return timedelta(seconds=max(0.0, time.time() - saved_at))


@click.group()
def checkpoints() -> None:
    """Look at the progress that `batchkit copy` and `batchkit run` saved, and remove it.

    \b
    Examples:
      batchkit checkpoints list
      batchkit checkpoints show orders-to-lake-orders-1f2e3d4c
      batchkit checkpoints clear --older-than 7d
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped


@checkpoints.command("list")
@_file_option
def list_saved(file: Path | None) -> int:
    """List saved checkpoints.

    \b
    Examples:
      batchkit checkpoints list
      batchkit checkpoints list --checkpoint /var/lib/orders.checkpoint
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    found = _saved(file)
    if not found:
        click.echo(f"no checkpoints in {_place(file)}")
        return DONE
    rows = [_HEADINGS, *(_row(saved) for saved in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return DONE


@checkpoints.command()
@click.argument("name", required=False)
@_file_option
def show(name: str | None, file: Path | None) -> int:
    """Print one checkpoint as JSON.

    \b
    Examples:
      batchkit checkpoints show orders-to-lake-orders-1f2e3d4c
      batchkit checkpoints show --checkpoint /var/lib/orders.checkpoint
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    path = _one(name, file)
    click.echo(msgspec.json.format(msgspec.json.encode(read_file(path)), indent=2).decode())
    return DONE


@checkpoints.command()
@click.argument("names", nargs=-1)
@_file_option
@click.option(
    "--older-than", callback=age, metavar="AGE", help="All that were saved longer ago: 7d, 12h, 30m."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(names: Sequence[str], file: Path | None, older_than: timedelta | None, *, yes: bool) -> int:
    """Remove checkpoints: the next copy or run begins at the beginning.

    \b
    Examples:
      batchkit checkpoints clear orders-to-lake-orders-1f2e3d4c
      batchkit checkpoints clear --older-than 7d --yes
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    if older_than is None and not names and file is None:
        raise click.UsageError("say what to remove: a NAME, --older-than AGE or --checkpoint FILE")
    chosen = [_one(name, None) for name in names] if names else [saved.path for saved in _saved(file)]
    if older_than is not None:
        chosen = [saved.path for saved in map(_load, chosen) if saved.age > older_than]
    if not chosen:
        click.echo("nothing to remove")
        return DONE
    for path in chosen:
        click.echo(f"{path.name}  {_status(_load(path))}")
    if not yes:
        click.confirm(f"remove {len(chosen)} of these for good?", abort=True)
    for path in chosen:
        path.unlink(missing_ok=True)
    click.echo(f"removed {len(chosen)}")
    return DONE


def _place(file: Path | None) -> Path:
    return default_folder() if file is None else file


def _saved(file: Path | None) -> list[Saved]:
    if file is not None:
        return [_load(_one(None, file))]
    return [_load(default_folder() / name) for name in saved_in(default_folder())]


def _one(name: str | None, file: Path | None) -> Path:
    if (name is None) == (file is None):
        raise click.UsageError("give either a NAME (see: batchkit checkpoints list) or --checkpoint FILE")
    if file is not None:
        path = file
    elif name in saved_in(default_folder()):
        path = default_folder() / name
    else:
        raise UsageError(f"no checkpoint {name!r} in {default_folder()}; see: batchkit checkpoints list")
    if not path.is_file():
        raise UsageError(f"there is no checkpoint file {str(path)!r}")
    return path


def _load(path: Path) -> Saved:
    try:
        return Saved(path=path, checkpoint=read_file(path))
    except CannotResumeError:
        return Saved(path=path, checkpoint=None)


def _status(saved: Saved) -> str:
    if saved.checkpoint is None:
        return "damaged"
    return f"{saved.checkpoint.status}, {saved.checkpoint.counts.read:,} records read"


def _row(saved: Saved) -> tuple[str, ...]:
    checkpoint = saved.checkpoint
    if checkpoint is None:
        return (saved.path.name, "?", "?", "damaged", "?", "?", _age_text(saved.age))
    saved_at = datetime.fromtimestamp(checkpoint.saved_at).astimezone()
    return (
        saved.path.name,
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
