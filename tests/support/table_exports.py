"""A table of orders exported leg after leg into memory, and compared with the table, row by row."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.engine.exceptions import StoppedError, TransientError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry
from airflow_batchkit.testing.doubles import MemorySink, MemoryStore, MemoryTarget
from tests.support.legs import QUIET, Recorder

if TYPE_CHECKING:
    from airflow_batchkit.connectors.sql import SqlSource
    from airflow_batchkit.engine.connections import Connections
    from airflow_batchkit.engine.report import Report

KEY = "export"
BATCH = 250
FEW = (0, 1, 99, 100, 101, BATCH, 500, 501)
"""Numbers of rows around the ends of pages (100, then 400 more) and of batches."""
ONE_TRY = BatchRetry(max_tries=1)
QUICK = BatchRetry(max_tries=4, first_wait=timedelta(milliseconds=1), max_wait=timedelta(milliseconds=5))

Row = dict[str, Any]


class TableExport:
    """One run of a job that reads a table by the key ``(day, id)``.

    :param source: what is read.
    :param connections: how it is reached.
    :param job: more settings of the job. Default: batches of 250 rows, and one try of each call in a leg.
    """

    def __init__(self, source: SqlSource, connections: Connections, **job: Any) -> None:
        self.connections = connections
        self.target = MemoryTarget()
        self.store = MemoryStore()
        self.heard: Recorder = Recorder()
        settings: dict[str, Any] = {
            "name": "export o'rders",
            "source": source,
            "sink": MemorySink(target=self.target),
            "batch": BatchPolicy(max_records=BATCH),
            "batch_retry": ONE_TRY,
            **job,
        }
        self.job = Job(**settings)

    def at_first_retry(self, act: Callable[[], object]) -> None:
        """Do something as soon as a leg has failed at something and means to try it again."""
        self.heard = _Acting(act)

    @property
    def saved(self) -> int:
        """How many rows the checkpoint says are done."""
        checkpoint = self.store.checkpoint(KEY)
        return 0 if checkpoint is None else checkpoint.counts.read

    def leg(self) -> Report:
        """Run one leg."""
        return Pipeline(
            self.job,
            identity=RunIdentity(run="run-1"),
            store=self.store,
            key=KEY,
            connections=self.connections,
            max_stuck_legs=100,
            listeners=[self.heard],
            log=QUIET,
        ).run()

    def to_the_end(self) -> int:
        """Run leg after leg; return how many it took."""
        for legs in range(1, 30):
            try:
                self.leg()
            except (StoppedError, TransientError):
                continue
            return legs
        raise AssertionError("not finished after 30 legs")

    def check(self, rows: Sequence[Row]) -> None:
        """Compare what is published with the rows, in the order of the key: ids, contents, counts, rests."""
        published = self.target.published
        assert published is not None
        assert published.ids == [id_of(row) for row in rows]
        assert self.target.records() == list(rows)
        wanted = {"read": len(rows), "transformed": len(rows), "written": len(rows), "dead_lettered": 0}
        assert {name: published.counts[name] for name in wanted} == wanted
        checkpoint = self.store.checkpoint(KEY)
        assert checkpoint is not None
        assert (checkpoint.status, self.target.staged, self.target.owner) == ("completed", {}, None)
        assert len(self.target.history) == 1

    def check_nothing_published(self) -> None:
        """Nobody sees anything of a run that failed."""
        assert self.target.history == []


class _Acting(Recorder):
    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act

    @override
    def on_retry(self, what: str, error: BaseException, tries: int, wait: float) -> None:
        if not self.named("retry"):
            self._act()
        super().on_retry(what, error, tries, wait)


def id_of(row: Mapping[str, Any]) -> str:
    """Return the id that the row's record has."""
    return json.dumps([row["day"], row["id"]], separators=(",", ":"))
