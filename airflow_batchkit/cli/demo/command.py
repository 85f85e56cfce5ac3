"""``batchkit demo``: orders are exported by a real Airflow, its worker is killed, and nothing is lost."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from airflow_batchkit.cli.exits import DONE, FAILED


@click.command()
@click.option(
    "--orders", type=click.IntRange(min=1000), default=200_000, show_default=True, help="Orders to make."
)
@click.option("--keep", is_flag=True, help="Keep the folder with Airflow's logs, the orders and the output.")
def demo(orders: int, *, keep: bool) -> int:
    """Watch an export survive a SIGKILL: made-up orders, SQLite to a local folder, in a real Airflow.

    Everything lives in a temporary folder and on loopback; an Airflow of your own is not touched.

    \b
    Examples:
      batchkit demo
      batchkit demo --keep

    \b
    Exit codes: 0 every order is accounted for · 1 something did not hold
    """  # noqa: D301  # \b is click's mark for a paragraph that must not be rewrapped
    from airflow_batchkit.cli.demo.scenes import play
    from airflow_batchkit.cli.demo.story import Story

    folder = Path(tempfile.mkdtemp(prefix="batchkit-demo-"))
    held = False
    try:
        with _ended_by_sigterm():
            held = play(Story(), folder.resolve(), orders=orders)
    finally:
        if keep or not held:
            click.echo(f"Airflow's logs, the orders and the output: {folder}", err=not held)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return DONE if held else FAILED


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does: through every ``finally``, so that no process stays behind."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
