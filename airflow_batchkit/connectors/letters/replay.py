"""Runs dead letters again through the engine: what succeeds leaves their place, what fails again stays."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import msgspec

from airflow_batchkit.connectors.letters.failed_again import ReplayLetters
from airflow_batchkit.connectors.letters.open_replay import OpenReplaySink, ReplayState
from airflow_batchkit.connectors.letters.place import ExtendableSink
from airflow_batchkit.engine.exceptions import BatchkitError
from airflow_batchkit.engine.policies import ErrorBudget
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.connectors.letters.place import OpenLetters
    from airflow_batchkit.connectors.letters.source import DeadLetterSource
    from airflow_batchkit.engine.job import Job
    from airflow_batchkit.engine.sink import OpenSink, Sink
    from airflow_batchkit.engine.source import OpenContext


@dataclass(frozen=True, kw_only=True, repr=False)
class ReplaySink(Value):
    """The sink of a replay: the user's own, and the taking out of the letters once it has published.

    :param sink: where the records go. An :class:`ExtendableSink`'s output is extended.
    :param letters: where they come from.
    """

    __templated__: ClassVar[tuple[str, ...]] = ("sink", "letters")

    sink: Sink
    letters: DeadLetterSource

    @property
    def idempotent(self) -> bool:
        """As the user's sink."""
        return self.sink.idempotent

    @property
    def one_write_per_partition(self) -> bool:
        """As the user's sink."""
        return self.sink.one_write_per_partition

    @property
    def default_batch_bytes(self) -> int:
        """As the user's sink."""
        return self.sink.default_batch_bytes

    @property
    def default_batch_records(self) -> int | None:
        """As the user's sink."""
        return self.sink.default_batch_records

    def open(self, context: OpenContext) -> OpenReplaySink:
        """Connect to both, and look; writes nothing.

        :raises UsageError: nothing is published that could be extended; or the letters do not belong to it.
        :raises TransientError: one of the two does not answer.
        """
        state = msgspec.convert(dict(context.state), ReplayState) if context.state else None
        place = self.letters.place.open_letters(context)
        try:
            place.check()
            name = self._set(place, context) if state is None else state.set
            inner = self._inner(dataclasses.replace(context, state={} if state is None else state.inner))
        except BatchkitError:
            place.close()
            raise
        return OpenReplaySink(
            inner,
            place,
            name=name,
            state=state,
            only=self.letters.only,
            extends=isinstance(self.sink, ExtendableSink),
            log=context.log,
        )

    def _set(self, place: OpenLetters, context: OpenContext) -> str:
        found = self.letters.choose(place, context)
        return "" if found is None else found.name

    def _inner(self, context: OpenContext) -> OpenSink:
        if isinstance(self.sink, ExtendableSink):
            return self.sink.open_extension(context)
        return self.sink.open(context)


def replay_of(job: Job, letters: DeadLetterSource) -> Job:
    """Turn a job into the replay of its dead letters: same transform, same sink, same policies.

    Each letter is tried once, so every one of them may fail again: the error budget is not asked.

    :param job: the job whose letters they are.
    :param letters: which of them; the output that is completed is filled in here.
    """
    sink = job.sink
    letters = dataclasses.replace(letters, output=sink if isinstance(sink, ExtendableSink) else None)
    return dataclasses.replace(
        job,
        source=letters,
        sink=ReplaySink(sink=sink, letters=letters),
        error_budget=ErrorBudget(max_fraction=1.0),
        dead_letters=ReplayLetters(place=letters.place),
        start_at=None,
        max_batches=None,
    )
