"""Runs dead letters again through the engine: what succeeds leaves their place, what fails again stays there.

The order of a replay's end decides what a kill can do: (1) what the letters are to be is prepared, unseen;
(2) the sink publishes; (3) the prepared letters become visible. A leg that finds (1) without (2) forgets it,
one that finds (2) without (3) does (3).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from typing_extensions import override

from airflow_batchkit.connectors.object_storage.extension import OpenExtension
from airflow_batchkit.connectors.object_storage.letters_files import (
    LetterSet,
    Revision,
    changed,
    read_set,
    short_hash,
)
from airflow_batchkit.connectors.object_storage.letters_rewrite import LetterRewrite, prepared_changes
from airflow_batchkit.connectors.object_storage.letters_source import DeadLetterSource
from airflow_batchkit.connectors.object_storage.letters_staging import (
    ReplayLetters,
    ReplayStaging,
    replay_run,
)
from airflow_batchkit.connectors.object_storage.locations import parse_location, segment
from airflow_batchkit.connectors.object_storage.ownership import Ownership
from airflow_batchkit.connectors.object_storage.patience import patiently
from airflow_batchkit.connectors.object_storage.sink import ObjectStorageSink
from airflow_batchkit.connectors.object_storage.store import open_store
from airflow_batchkit.engine.exceptions import BatchkitError, ReconciliationError, UsageError
from airflow_batchkit.engine.policies import ErrorBudget
from airflow_batchkit.engine.sink import OpenSink
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.dead_letters import DeadLetters
    from airflow_batchkit.connectors.object_storage.store import ObjectStore
    from airflow_batchkit.engine.job import Job
    from airflow_batchkit.engine.sink import BatchKey, BatchWriter, Leg, Publication, Sink
    from airflow_batchkit.engine.source import OpenContext


class _State(msgspec.Struct, frozen=True):
    """What the next leg of a replay must know.

    :param folder: of the set of letters; empty where there is nothing to do.
    :param revision: of the set when the replay began.
    :param inner: what the sink itself wants back.
    """

    folder: str
    revision: Revision
    inner: dict[str, Any]


@dataclass(frozen=True, kw_only=True, repr=False)
class ReplaySink(Value):
    """The sink of a replay: the user's own, and the taking out of the letters once it has published.

    :param sink: where the records go. An :class:`ObjectStorageSink`'s output is extended.
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
        :raises TransientError: a store does not answer.
        """
        state = msgspec.convert(dict(context.state), _State) if context.state else None
        place = self.letters.open_place(context)
        try:
            place.check()
            folder = self._folder(place, context) if state is None else state.folder
            inner = self._inner(dataclasses.replace(context, state={} if state is None else state.inner))
        except BatchkitError:
            place.close()
            raise
        return OpenReplaySink(inner, place, folder=folder, state=state, letters=self.letters, log=context.log)

    def _folder(self, place: ObjectStore, context: OpenContext) -> str:
        found = self.letters.choose(place, context)
        return "" if found is None else found.folder

    def _inner(self, context: OpenContext) -> OpenSink:
        if not isinstance(self.sink, ObjectStorageSink):
            return self.sink.open(context)
        store = open_store(
            parse_location(self.sink.url), self.sink.conn_id, context, s3_settings=self.sink.s3_settings
        )
        try:
            store.check()
            return OpenExtension(
                store,
                state=context.state,
                seconds=context.timeouts.batch.total_seconds(),
                log=context.log,
            )
        except BatchkitError:
            store.close()
            raise


@dataclass(slots=True)
class _Claimed:
    """What a replay holds while there are letters to replay.

    :param found: the set of letters.
    :param name: of the replay.
    :param done: whether the sink has published.
    :param ownership: of the letters.
    :param failed: what fails again.
    """

    found: LetterSet
    name: str
    done: bool
    ownership: Ownership
    failed: ReplayStaging


class OpenReplaySink(OpenSink):
    """An open :class:`ReplaySink`.

    :param inner: the user's sink, or the extension of its output.
    :param place: where the letters lie.
    :param folder: of the run's letters; empty where there are none.
    :param state: what the leg before left, None for the first.
    :param letters: which of them are read.
    :param log: where to say what is done.
    """

    def __init__(
        self,
        inner: OpenSink,
        place: ObjectStore,
        *,
        folder: str,
        state: _State | None,
        letters: DeadLetterSource,
        log: logging.Logger,
    ) -> None:
        self._inner = inner
        self._place = place
        self._folder = folder
        self._began_at = None if state is None else state.revision
        self._only = letters.only
        self._log = log
        self._claimed: _Claimed | None = None

    @property
    @override
    def fingerprints(self) -> Mapping[str, str]:
        return {name: short_hash(value) for name, value in self._inner.fingerprints.items()}

    @property
    @override
    def environment(self) -> Mapping[str, Any]:
        return {**self._inner.environment, "letters": f"{self._place.location.url}/{self._folder}"}

    @property
    @override
    def state(self) -> Mapping[str, Any]:
        state = _State(self._folder, self._began_at or Revision("", 0), dict(self._inner.state))
        return dict(msgspec.to_builtins(state))

    @override
    def start(self, leg: Leg) -> None:
        if leg.mode != "real":
            raise UsageError("a replay runs each letter once: choose letters by a filter, not by max_batches")
        found = patiently(lambda: read_set(self._place, self._folder)) if self._folder else None
        if found is None:
            self._folder = ""
            self._log.info("there are no dead letters to replay: nothing will be done")
            return
        ours = dataclasses.replace(
            leg, job=found.head.job, run=replay_run(leg), generation=found.head.generation
        )
        ownership = Ownership(self._place, ours, root=f"{segment(found.head.job)}/")
        ownership.claim()
        try:
            self._recover(found)
            self._claimed = self._begin(ours, leg, ownership)
        except BatchkitError:
            ownership.release()
            raise

    def _begin(self, ours: Leg, leg: Leg, ownership: Ownership) -> _Claimed:
        found = read_set(self._place, self._folder)
        if found is None:
            raise changed(self._place, self._folder)
        began_at = self._began_at = self._began_at or found.revision
        name = short_hash(leg.job, leg.run, leg.generation, began_at.generation, began_at.revision)
        done = found.head.replayed == name and found.head.revision == began_at.revision + 1
        if found.revision != began_at and not done:
            raise changed(self._place, self._folder)
        failed = ReplayStaging(self._place, leg)
        failed.start()
        # Others see the run that gave the letters up: a receiver's idempotency keys stay what they were.
        inner_leg = dataclasses.replace(leg, job=found.head.job, run=found.head.run)
        if isinstance(self._inner, OpenExtension):
            inner_leg = dataclasses.replace(ours, partitions=(f"replay-{name}",))
        try:
            self._inner.start(inner_leg)
        except BatchkitError:
            if leg.inherited is None:
                failed.remove()
            raise
        return _Claimed(found, name, done, ownership, failed)

    @override
    def begin(self, key: BatchKey) -> BatchWriter:
        return self._inner.begin(key)

    @override
    def renew(self, *, for_seconds: float = 0.0) -> None:
        if self._claimed is not None:
            self._inner.renew(for_seconds=for_seconds)
            self._claimed.ownership.renew_if_due(for_seconds=for_seconds)

    @override
    def publish(self, publication: Publication) -> Mapping[str, Any]:
        """Prepare the letters, publish, take the letters out; each may be done again.

        :raises ReconciliationError: as many letters as were read are not there any more.
        """
        claimed = self._claimed
        replayed = publication.counts["read"]
        if not replayed:
            self._log.info("no letter was replayed: nothing is changed")
        if claimed is None:
            return {"replayed": 0}
        claimed.ownership.confirm()
        rewrite = LetterRewrite(self._place, claimed.found, name=claimed.name)
        if replayed and not claimed.done:
            self._prepare(rewrite, claimed, publication)
        published = self._inner.publish(publication)
        claimed.done = True  # from here on a repeated call only ends what is prepared
        if replayed:
            claimed.ownership.confirm()
            rewrite.apply()
        claimed.failed.remove()
        return {**published, "replayed": replayed}

    @override
    def release(self) -> None:
        if self._claimed is None:
            return
        self._inner.release()
        try:
            self._claimed.ownership.release()
        except BatchkitError as error:
            self._log.warning("%s is not released: %s", self._place.location.url, error)

    @override
    def close(self) -> None:
        self._inner.close()
        self._place.close()

    def _recover(self, found: LetterSet) -> None:
        """End, or forget, what a leg before this one, or another replay, had prepared."""
        published = self._inner.replayed if isinstance(self._inner, OpenExtension) else ""
        for name in prepared_changes(self._place, self._folder):
            rewrite = LetterRewrite(self._place, found, name=name)
            if published == f"replay-{name}" or found.head.replayed == name:
                self._log.info("a replay was cut off behind its publication: its letters are taken out now")
                rewrite.apply()
            else:
                rewrite.discard()

    def _prepare(self, rewrite: LetterRewrite, claimed: _Claimed, publication: Publication) -> None:
        counts = publication.counts
        failed = claimed.failed.lines(publication.frontier)
        again = 0

        def added() -> Iterator[bytes]:
            nonlocal again
            for line in failed:
                again += 1
                yield line

        taken = rewrite.prepare(self._only.replayable, added())
        if (taken, again) != (counts["read"], counts["dead_lettered"]):
            raise ReconciliationError(
                f"{counts['read']:,} letters were replayed and {counts['dead_lettered']:,} failed again, but "
                f"{taken:,} and {again:,} are there; nothing is published"
            )


def replay_of(job: Job, place: DeadLetters, *, source: DeadLetterSource) -> Job:
    """Turn a job into the replay of its dead letters: same transform, same sink, same policies.

    Each letter is tried once, so every one of them may fail again: the error budget is not asked.

    :param job: the job whose letters they are.
    :param place: where they are kept.
    :param source: which of them; its place, and the output that is completed, are filled in here.
    """
    sink = job.sink
    output = sink if isinstance(sink, ObjectStorageSink) else None
    letters = dataclasses.replace(
        source, url=place.url, conn_id=place.conn_id, s3_settings=place.s3_settings, output=output
    )
    return dataclasses.replace(
        job,
        source=letters,
        sink=ReplaySink(sink=sink, letters=letters),
        error_budget=ErrorBudget(max_fraction=1.0),
        dead_letters=ReplayLetters(url=place.url, conn_id=place.conn_id, s3_settings=place.s3_settings),
        start_at=None,
        max_batches=None,
    )
