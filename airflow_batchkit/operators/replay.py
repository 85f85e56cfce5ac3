"""Runs dead letters again: after a fix, the records that a job had given up go where the others went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.connectors.letters import DeadLetterSource, LetterFilter
from airflow_batchkit.connectors.letters.place import replayable
from airflow_batchkit.connectors.letters.replay import replay_of
from airflow_batchkit.connectors.object_storage import DeadLetters
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.operators.base import BatchkitOperator

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_batchkit.engine.dead_letters import DeadLetterPlace
    from airflow_batchkit.engine.job import Job
    from airflow_batchkit.engine.sink import Sink
    from airflow_batchkit.engine.source import Source


class ReplayDeadLettersOperator(BatchkitOperator):
    """Reads the dead letters of one run, and sends their records through the same transform and sink again.

    An :class:`~airflow_batchkit.connectors.object_storage.ObjectStorageSink`'s output is extended in one
    step, and its counts are corrected. What succeeds leaves the place; what fails again stays there with one
    replay more. Each letter is tried once per run; a second run finds nothing to do. Takes the arguments of
    :class:`~airflow_batchkit.operators.base.BatchkitOperator` besides, but for ``error_budget``,
    ``start_at`` and ``max_batches``.

    :param dead_letters: the place, or the URL of a :class:`DeadLetters`; as the job was given it (templated).
    :param sink: the job's sink (templated).
    :param only: which letters (templated). Default: all that were replayed less than ten times.
    :param of_job: ``dag_id.task_id`` of the job, where several share the place (templated). Default: the one
        whose output the sink shows.
    :param of_run: which run of it, as the letters name it (templated). Default: the one that the sink shows.
    """

    template_fields: Collection[str] = (
        "sink",
        "only",
        "of_job",
        "of_run",
        *BatchkitOperator.template_fields,
    )
    ui_color = "#e8f4ef"

    def __init__(
        self,
        *,
        dead_letters: DeadLetterPlace | str,
        sink: Sink,
        only: LetterFilter | None = None,
        of_job: str | None = None,
        of_run: str | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ("error_budget", "start_at", "max_batches"):
            if name in kwargs:
                raise UsageError(f"ReplayDeadLettersOperator({name}=…): a replay tries each letter once")
        place = DeadLetters(dead_letters) if isinstance(dead_letters, str) else dead_letters
        super().__init__(dead_letters=place, **kwargs)
        self.sink = sink
        self.only = only
        self.of_job = of_job
        self.of_run = of_run

    @override
    def source_value(self) -> Source:
        return self._letters

    @override
    def sink_value(self) -> Sink:
        return self.sink

    @override
    def job(self, name: str) -> Job:
        return replay_of(super().job(name), self._letters)

    @property
    def _letters(self) -> DeadLetterSource:
        return DeadLetterSource(
            replayable(self.dead_letters, what=f"task {self.task_id!r}"),
            only=self.only or LetterFilter(),
            job=self.of_job,
            run=self.of_run,
        )
