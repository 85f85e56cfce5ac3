"""What a person sees while a copy runs: one moving line on a terminal, plain log lines everywhere else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.engine.listener import Listener
from airflow_batchkit.engine.progress_log import LogListener, one_line

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from airflow_batchkit.engine.dead_letters import DeadLetter
    from airflow_batchkit.engine.progress import Progress
    from airflow_batchkit.engine.report import Report
    from airflow_batchkit.engine.stop import Stop

LOG = logging.getLogger("airflow_batchkit")
_WIDE = 120


@contextmanager
def display(stop: Stop, *, moving: bool, verbose: bool, doing: str = "copying") -> Iterator[Listener]:
    """Show progress for the time of a ``with`` block; give the listener that is to be told.

    Everything goes to standard error: standard output is left to the final summary.

    :param stop: asked for a request to stop, which is shown.
    :param moving: a line that moves, instead of log lines.
    :param verbose: every query and stack trace besides.
    :param doing: what goes on, in one word.
    """
    if not moving:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        with _logging_to(handler, logging.DEBUG if verbose else logging.INFO, others=verbose):
            yield PlainLines(LOG)
        return
    from rich.console import Console

    bar = MovingLine(Console(stderr=True), stop, doing=doing)
    level = logging.DEBUG if verbose else logging.WARNING
    with _logging_to(_AboveTheLine(bar), level, others=verbose), bar.shown():
        yield bar


@contextmanager
def _logging_to(handler: logging.Handler, level: int, *, others: bool) -> Iterator[None]:
    """Send our log to a handler, and where asked for also that of the client libraries, which repeats it."""
    if not others:
        handler.addFilter(logging.Filter(LOG.name))
    root = logging.getLogger()
    before = LOG.level
    root.addHandler(handler)
    LOG.setLevel(level)
    try:
        yield
    finally:
        root.removeHandler(handler)
        LOG.setLevel(before)


class PlainLines(LogListener):
    """The log lines of every run; how it ended is said by the command itself."""

    @override
    def on_finish(self, report: Report) -> None:
        """Leave it to the command's summary."""

    @override
    def on_failure(self, error: BaseException) -> None:
        self._log.debug("the leg ended", exc_info=error)


class MovingLine(Listener):
    """A bar and the progress line, rewritten in place.

    :param console: the terminal.
    :param stop: asked for a request to stop.
    :param doing: what goes on, in one word.
    """

    def __init__(self, console: Any, stop: Stop, *, doing: str = "copying") -> None:
        from rich.progress import BarColumn, Progress as RichProgress, SpinnerColumn, TextColumn
        from rich.table import Column

        self.console = console
        self._stop = stop
        self._doing = doing
        # On a narrow terminal the numbers matter more than the bar.
        bar = [BarColumn(bar_width=24)] if console.width >= _WIDE else []
        self._bar: RichProgress = RichProgress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}", table_column=Column(min_width=8, no_wrap=True)),
            *bar,
            TextColumn("{task.fields[line]}", markup=False, table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("connecting", total=None, line="")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the line for the time of a ``with`` block, and leave a clean terminal."""
        with self._bar:
            yield

    @override
    def on_start(self, facts: Mapping[str, Any]) -> None:
        LOG.warning("%s · run %s · %s", facts["job"], facts["run"], facts["begins"])
        self._bar.update(self._task, description="reading")

    @override
    def on_progress(self, progress: Progress) -> None:
        total = progress.total
        # More read than expected: a full bar that still moves on would lie.
        known = total is not None and progress.read <= total.records
        self._bar.update(
            self._task,
            description="stopping" if self._stop.asked else self._doing,
            total=total.records if known and total is not None else None,
            completed=progress.read,
            line=progress.line(),
        )

    @override
    def on_waiting(self, reason: str, seconds: float) -> None:
        self._bar.update(self._task, description=f"waiting {seconds:,.0f} s", line=one_line(reason))

    @override
    def on_retry(self, what: str, error: BaseException, tries: int, wait: float) -> None:
        LOG.warning(
            "%s failed (try %d): %s; again in %.1f s", what, tries, one_line(str(error)), wait, exc_info=error
        )

    @override
    def on_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        first = letters[0]
        LOG.debug(
            "%d dead-lettered, the first: %s: %s", len(letters), ascii(first.id), one_line(first.message)
        )

    @override
    def on_publishing(self) -> None:
        self._bar.update(self._task, description="publishing")


class _AboveTheLine(logging.Handler):
    """Prints log records above the moving line; stack traces only where every detail was asked for."""

    def __init__(self, line: MovingLine) -> None:
        super().__init__()
        self._line = line

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if LOG.level > logging.DEBUG:
            record.exc_info = record.exc_text = None
        self._line.console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
