"""Counts a run in Airflow's own metrics, StatsD or OpenTelemetry, wherever Airflow sends the others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import Stats
from typing_extensions import override

from airflow_batchkit.engine.exceptions import StoppedError, SupersededError
from airflow_batchkit.engine.listener import Listener
from airflow_batchkit.engine.report import count_dict

if TYPE_CHECKING:
    from airflow_batchkit.engine.checkpoint import Checkpoint
    from airflow_batchkit.engine.progress import Progress
    from airflow_batchkit.engine.report import Report

_COUNTERS = {
    "batches": "batchkit.batches",
    "read": "batchkit.records.read",
    "filtered": "batchkit.records.filtered",
    "written": "batchkit.records.written",
    "unchanged": "batchkit.records.unchanged",
    "dead_lettered": "batchkit.records.dead_lettered",
    "bytes_read": "batchkit.bytes_read",
    "retries": "batchkit.retries",
}


class MetricsListener(Listener):
    """Sends what became durable since the last save, so that a batch that is done again counts once.

    ``docs/metrics.md`` names each metric. All carry the tags ``dag_id`` and ``task_id``.

    :param dag_id: for the tags.
    :param task_id: for the tags.
    """

    def __init__(self, *, dag_id: str, task_id: str) -> None:
        self._tags = {"dag_id": dag_id, "task_id": task_id}
        self._sent: dict[str, int] | None = None
        self._sent_at = 0.0
        self._throttled = 0

    @override
    def on_saved(self, checkpoint: Checkpoint) -> None:
        now, counts = time.monotonic(), count_dict(checkpoint.counts)
        before, self._sent = self._sent, counts
        seconds, self._sent_at = now - self._sent_at, now
        if before is None:  # the claim of the leg: what earlier legs did is counted already
            return
        for name, metric in _COUNTERS.items():
            more = counts[name] - before[name]
            if more > 0:
                Stats.incr(metric, more, tags=self._tags)
        batches = counts["batches"] - before["batches"]
        if batches > 0:
            Stats.timing("batchkit.batch.duration", 1000 * seconds / batches, tags=self._tags)

    @override
    def on_progress(self, progress: Progress) -> None:
        throttled = round(1000 * progress.throttled_seconds)
        if throttled > self._throttled:
            Stats.incr("batchkit.throttled.milliseconds", throttled - self._throttled, tags=self._tags)
            self._throttled = throttled
        Stats.gauge("batchkit.records_per_second", progress.records_per_second, tags=self._tags)
        if progress.total is not None:
            left = max(0, progress.total.records - progress.read)
            Stats.gauge("batchkit.lag.records", left, tags=self._tags)
        if progress.eta_seconds is not None:
            Stats.gauge("batchkit.lag.seconds", progress.eta_seconds, tags=self._tags)

    @override
    def on_finish(self, report: Report) -> None:
        Stats.timing("batchkit.run.duration", 1000 * report.active_seconds, tags=self._tags)
        Stats.incr(f"batchkit.run.{report.status}", tags=self._tags)

    @override
    def on_failure(self, error: BaseException) -> None:
        if isinstance(error, StoppedError):
            Stats.incr("batchkit.leg.stopped", tags=self._tags)
        elif not isinstance(error, SupersededError):
            Stats.incr("batchkit.leg.failed", tags={**self._tags, "error": type(error).__name__})
