"""The run's story in the log: what it starts with, each batch, each trouble with its stack trace, the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.engine.exceptions import StoppedError, SupersededError
from airflow_batchkit.engine.listener import Listener
from airflow_batchkit.engine.progress import clock_text

if TYPE_CHECKING:
    from airflow_batchkit.engine.dead_letters import DeadLetter
    from airflow_batchkit.engine.progress import Progress
    from airflow_batchkit.engine.report import Report

_LETTERS_IN_FULL = 3


class LogListener(Listener):
    """Writes plain lines; one event, one line, except for the start block and the final table.

    :param log: where to.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._letters_told = 0
        self._told = (0, 0)

    @override
    def on_start(self, facts: Mapping[str, Any]) -> None:
        mode = str(facts.get("mode", "")).upper()
        self._log.info("%s begins in %s mode", one_line(str(facts.get("job"))), mode)
        for name, value in flatten(facts):
            self._log.info("  %s = %s", name, value)

    @override
    def on_progress(self, progress: Progress) -> None:
        # A window in which nothing matched moves the cursor, which is nothing to read about.
        standing = (progress.batches, progress.read)
        if standing != self._told:
            self._log.info("%s", progress.line())
        self._told = standing

    @override
    def on_waiting(self, reason: str, seconds: float) -> None:
        self._log.info("waiting %s: %s", clock_text(seconds), one_line(reason))

    @override
    def on_retry(self, what: str, error: BaseException, tries: int, wait: float) -> None:
        self._log.warning(
            "%s failed (try %d): %s: %s; trying again in %.1f s",
            one_line(what),
            tries,
            type(error).__name__,
            one_line(str(error)),
            wait,
            exc_info=error,
        )

    @override
    def on_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        # A run may give up thousands of records for one reason: the first few are told in full, the rest are
        # counted in the progress line and kept whole in the dead letters.
        for letter in letters[: max(0, _LETTERS_IN_FULL - self._letters_told)]:
            self._letters_told += 1
            self._log.error(
                "record %s dead-lettered by the %s: %s: %s\n%s",
                ascii(letter.id),
                letter.stage,
                one_line(letter.error_type),
                one_line(letter.message),
                _block(letter.stack_trace),
            )
        self._log.warning(
            "%d records of %s, batch %d, dead-lettered", len(letters), letters[0].partition, letters[0].batch
        )

    @override
    def on_publishing(self) -> None:
        self._log.info("everything is written; publishing")

    @override
    def on_finish(self, report: Report) -> None:
        self._log.info("%s", summary(report))

    @override
    def on_failure(self, error: BaseException) -> None:
        if isinstance(error, SupersededError):
            self._log.warning("superseded: %s; this leg ends and touches nothing more", one_line(str(error)))
        elif isinstance(error, StoppedError):
            self._log.warning("stopped: %s; the next leg goes on from the checkpoint", one_line(str(error)))
        else:
            self._log.error("failed: %s: %s", type(error).__name__, one_line(str(error)), exc_info=error)


def summary(report: Report) -> str:
    """Return the final table, several lines."""
    counts = report.counts
    seconds = max(report.active_seconds, 0.001)
    rows: list[tuple[str, str]] = [
        ("status", f"{report.status} ({report.mode})"),
        ("read", f"{counts['read']:,}"),
        ("filtered", f"{counts['filtered']:,}"),
        ("written", f"{counts['written']:,}"),
        ("unchanged", f"{counts['unchanged']:,}"),
        ("dead-lettered", f"{counts['dead_lettered']:,}"),
        ("skipped (LOCAL mode)", f"{counts['skipped']:,}"),
        ("batches", f"{counts['batches']:,} ({counts['retries']:,} retries)"),
        (
            "working time",
            f"{clock_text(seconds)} in {report.legs} legs, {counts['read'] / seconds:,.0f} records/s",
        ),
        (
            "finished",
            datetime.fromtimestamp(report.finished_at, tz=UTC).isoformat(timespec="seconds"),
        ),
        *((f"published {name}", str(value)) for name, value in flatten(report.published)),
        *((f"dead letters {name}", str(value)) for name, value in flatten(report.dead_letters)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(
        [
            one_line(f"{report.job}, run {report.run}"),
            *(f"  {name:<{width}}  {value}" for name, value in rows),
        ]
    )


def flatten(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``("settings.batch.max_records", 1000)`` for each leaf of nested mappings."""
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", one_line(value) if isinstance(value, str) else value


def _block(text: str) -> str:
    """Keep the lines of a stack trace, each indented: its last line quotes what the data holds."""
    return "\n".join(f"    {one_line(line)}" for line in text.split("\n"))


def one_line(text: str) -> str:
    """Escape what could forge a log line: line breaks and terminal control sequences."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
