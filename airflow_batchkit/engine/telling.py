"""Tells the listeners, and works out the progress that they are told."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from airflow_batchkit.engine.exceptions import SupersededError
from airflow_batchkit.engine.progress import Meter, Progress, eta

if TYPE_CHECKING:
    from airflow_batchkit.engine.checkpoint import Checkpoint
    from airflow_batchkit.engine.clock import Clock
    from airflow_batchkit.engine.listener import Listener
    from airflow_batchkit.engine.types import Total

_CURSOR_TEXT = 200


class Teller:
    """Calls every listener; one that fails is reported once and does not disturb the run.

    :param listeners: who is told.
    :param log: where a listener's failure is reported.
    """

    def __init__(self, listeners: Sequence[Listener], log: logging.Logger) -> None:
        self._listeners = listeners
        self._log = log
        self._reported: set[int] = set()

    def tell(self, call: Callable[[Listener], None]) -> None:
        """Make one call to each listener."""
        for listener in self._listeners:
            try:
                call(listener)
            except SupersededError:
                raise
            except Exception:  # noqa: BLE001  # whoever looks on must not disturb the run
                if id(listener) not in self._reported:
                    self._reported.add(id(listener))
                    self._log.warning(
                        "%s failed; the run goes on (said once)", type(listener).__name__, exc_info=True
                    )


class ProgressTracker:
    """Knows the times that progress is made of.

    :param checkpoint: of the leg; its counts and active seconds are kept up to date.
    :param total: what the source expects.
    :param clock: where the time comes from.
    """

    def __init__(self, checkpoint: Checkpoint, total: Total | None, clock: Clock) -> None:
        self._checkpoint = checkpoint
        self._total = total
        self._clock = clock
        self._began = clock.monotonic()
        self._active_before = checkpoint.active_seconds
        self._throttled = 0.0
        self._meter = Meter(checkpoint.counts.read)

    def waited(self, seconds: float) -> None:
        """Note time that was spent waiting on purpose."""
        self._throttled += seconds

    def touch(self) -> None:
        """Bring the checkpoint's active seconds up to date."""
        self._checkpoint.active_seconds = self._active_before + self._clock.monotonic() - self._began

    def progress(self, status: str = "running") -> Progress:
        """Return where the run stands now."""
        self.touch()
        counts = self._checkpoint.counts
        rate = self._meter.rate(self._clock.monotonic() - self._began, counts.read)
        return Progress(
            batches=counts.batches,
            batches_total=self._batches_total(),
            read=counts.read,
            total=self._total,
            records_per_second=rate,
            dead_lettered=counts.dead_lettered,
            eta_seconds=eta(self._total, counts.read, rate),
            active_seconds=self._checkpoint.active_seconds,
            throttled_seconds=self._throttled,
            bytes_read=counts.bytes_read,
            cursor=self._cursor_text(),
            status=status,
        )

    def _batches_total(self) -> int | None:
        counts = self._checkpoint.counts
        if self._total is None or not counts.read or counts.read > self._total.records:
            return None
        return max(counts.batches, -(-counts.batches * self._total.records // counts.read))

    def _cursor_text(self) -> str:
        places = [
            f"{progress.partition}: {json.dumps(progress.cursor)}"
            for progress in self._checkpoint.frontier.open
        ]
        text = "; ".join(places) or ("finished" if self._checkpoint.frontier.next else "at the beginning")
        return text if len(text) <= _CURSOR_TEXT else f"{text[: _CURSOR_TEXT - 1]}…"
