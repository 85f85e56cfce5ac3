"""What a person sees: a line that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from airflow_batchkit.cli.progress import LOG, MovingLine, display
from airflow_batchkit.engine.exceptions import PermanentError
from airflow_batchkit.engine.progress import Progress
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.engine.types import Total

if TYPE_CHECKING:
    from airflow_batchkit.engine.listener import Listener


def progress(read: int, total: Total | None = None) -> Progress:
    """Return a moment of a run."""
    return Progress(
        batches=3,
        batches_total=None,
        read=read,
        total=total,
        records_per_second=1234.0,
        dead_lettered=1,
        eta_seconds=None,
        active_seconds=2.0,
        throttled_seconds=0.0,
        bytes_read=100,
        cursor="",
    )


def moving(width: int, stop: Stop) -> tuple[MovingLine, io.StringIO]:
    """Return a moving line, and where it is shown."""
    shown = io.StringIO()
    return MovingLine(Console(file=shown, force_terminal=True, width=width), stop), shown


def tell(listener: Listener) -> None:
    """Tell a listener a short run."""
    listener.on_start({"job": "copy a b", "run": "r1", "begins": "the run begins", "mode": "real"})
    listener.on_progress(progress(1000, Total(records=4000)))
    listener.on_retry("write", PermanentError("refused\x1b[2J"), 1, 0.5)


def test_plain_lines_tell_settings_progress_and_trouble(capfd: pytest.CaptureFixture[str]) -> None:
    """Without a terminal: start block, batches and retries, one line each, and nothing on stdout."""
    with display(Stop(), moving=False, verbose=False) as listener:
        tell(listener)
        listener.on_failure(PermanentError("told by the command"))
        logging.getLogger("elastic_transport").warning("says the same again")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "INFO   run = r1" in captured.err
    assert "1,000/4,000 records (25%)" in captured.err
    assert "write failed (try 1)" in captured.err
    assert "told by the command" not in captured.err
    assert "says the same again" not in captured.err


def test_verbose_adds_traces_and_the_libraries_log(capfd: pytest.CaptureFixture[str]) -> None:
    """With -v the log of client libraries and the trace of a failure are shown too."""
    with display(Stop(), moving=False, verbose=True) as listener:
        listener.on_failure(PermanentError("told by the command"))
        logging.getLogger("elastic_transport").warning("says the same again")
    said = capfd.readouterr().err
    assert "told by the command" in said
    assert "says the same again" in said


@pytest.mark.parametrize("moving_line", [True, False])
def test_logging_is_left_as_it_was(moving_line: bool) -> None:
    """After the block neither handler nor level is left behind."""
    root = logging.getLogger()
    before = (list(root.handlers), LOG.level)
    with display(Stop(), moving=moving_line, verbose=True):
        assert len(root.handlers) == len(before[0]) + 1
    assert (root.handlers, LOG.level) == before


def test_moving_line_shows_the_progress_line() -> None:
    """The same line as in the log, beside a bar where there is room for one, and the cursor is given back."""
    for width, bar in ((140, True), (80, False)):
        line, shown = moving(width, Stop())
        with line.shown():
            line.on_progress(progress(1000, Total(records=4000)))
        text = shown.getvalue()
        assert "1,000/4,000 records (25%)" in text
        assert "copying" in text
        assert ("━" in text) is bar
        assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_moving_line_shows_what_is_waited_for() -> None:
    """Waiting, publishing and a stop that was asked are shown in place of the progress."""
    stop = Stop()
    line, shown = moving(120, stop)
    with line.shown():
        line.on_waiting("the target is held\n by r2", 12)
        line._bar.refresh()
        line.on_publishing()
        line._bar.refresh()
        stop.ask("enough")
        line.on_progress(progress(5, None))
        line._bar.refresh()
    text = shown.getvalue()
    for part in ("waiting 12 s", "the target is held", "publishing", "stopping", "total unknown"):
        assert part in text


def test_more_read_than_expected_is_no_full_bar() -> None:
    """A total that turned out wrong makes the bar indefinite, not full."""
    line, _ = moving(140, Stop())
    with line.shown():
        line.on_progress(progress(5000, Total(records=4000)))
        assert line._bar.tasks[0].total is None


def test_moving_line_says_what_goes_on() -> None:
    """A command that does not copy says what it does instead."""
    shown = io.StringIO()
    line = MovingLine(Console(file=shown, force_terminal=True, width=140), Stop(), doing="verifying")
    with line.shown():
        line.on_progress(progress(1000, Total(records=4000)))
    assert "verifying" in shown.getvalue()
