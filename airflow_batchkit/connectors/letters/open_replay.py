"""The sink of one leg of a replay.

The order of a replay's end decides what a kill can do: (1) what the letters are to be is prepared, unseen;
(2) the sink publishes; (3) the prepared letters become visible. A leg that finds (1) without (2) forgets it,
one that finds (2) without (3) does (3).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec
from typing_extensions import override

from airflow_batchkit.connectors.letters.place import (
    Change,
    FailedAgain,
    Hold,
    LetterSet,
    OpenExtension,
    OpenLetters,
    Revision,
    as_replay,
    changed,
    short_hash,
)
from airflow_batchkit.engine.exceptions import BatchkitError, ReconciliationError, UsageError
from airflow_batchkit.engine.sink import OpenSink

if TYPE_CHECKING:
    from airflow_batchkit.connectors.letters.filter import LetterFilter
    from airflow_batchkit.engine.sink import BatchKey, BatchWriter, Leg, Publication


class ReplayState(msgspec.Struct, frozen=True):
    """What the next leg of a replay must know.

    :param set: name of the set of letters; empty where there is nothing to do.
    :param revision: of the set when the replay began.
    :param inner: what the sink itself wants back.
    """

    set: str
    revision: Revision
    inner: dict[str, Any]


@dataclass(slots=True)
class _Claimed:
    """What a replay holds while there are letters to replay.

    :param found: the set of letters.
    :param name: of the replay.
    :param done: whether the sink has published.
    :param hold: of the letters.
    :param failed: what fails again.
    """

    found: LetterSet
    name: str
    done: bool
    hold: Hold
    failed: FailedAgain


class OpenReplaySink(OpenSink):
    """An open :class:`~airflow_batchkit.connectors.letters.replay.ReplaySink`.

    :param inner: the user's sink, or the extension of its output.
    :param place: where the letters lie.
    :param name: of the set of the run's letters; empty where there are none.
    :param state: what the leg before left, None for the first.
    :param only: which of them are read.
    :param extends: whether ``inner`` is the extension of an output.
    :param log: where to say what is done.
    """

    def __init__(
        self,
        inner: OpenSink,
        place: OpenLetters,
        *,
        name: str,
        state: ReplayState | None,
        only: LetterFilter,
        extends: bool,
        log: logging.Logger,
    ) -> None:
        self._inner = inner
        self._place = place
        self._name = name
        self._began_at = None if state is None else state.revision
        self._only = only
        self._extension = cast("OpenExtension", inner) if extends else None
        self._log = log
        self._claimed: _Claimed | None = None

    @property
    @override
    def fingerprints(self) -> Mapping[str, str]:
        return {name: short_hash(value) for name, value in self._inner.fingerprints.items()}

    @property
    @override
    def environment(self) -> Mapping[str, Any]:
        return {**self._inner.environment, "letters": f"{self._place.url} ({self._name or 'none'})"}

    @property
    @override
    def state(self) -> Mapping[str, Any]:
        state = ReplayState(self._name, self._began_at or Revision("", 0), dict(self._inner.state))
        return dict(msgspec.to_builtins(state))

    @override
    def start(self, leg: Leg) -> None:
        if leg.mode != "real":
            raise UsageError("a replay runs each letter once: choose letters by a filter, not by max_batches")
        found = self._place.find(self._name) if self._name else None
        if found is None:
            self._name = ""
            self._log.info("there are no dead letters to replay: nothing will be done")
            return
        ours = dataclasses.replace(as_replay(leg), job=found.job, generation=found.generation)
        hold = self._place.hold(found, ours)
        hold.claim()
        try:
            self._recover(found)
            self._claimed = self._begin(ours, leg, hold)
        except BatchkitError:
            hold.release()
            raise

    def _begin(self, ours: Leg, leg: Leg, hold: Hold) -> _Claimed:
        found = self._place.find(self._name)
        if found is None:
            raise changed(f"{self._place.url} ({self._name})")
        began_at = self._began_at = self._began_at or found.state
        name = short_hash(leg.job, leg.run, leg.generation, began_at.generation, began_at.revision)
        done = found.replayed == name and found.revision == began_at.revision + 1
        if found.state != began_at and not done:
            raise changed(found.url)
        failed = self._place.failed_again(leg)
        failed.start()
        # Others see the run that gave the letters up: a receiver's idempotency keys stay what they were.
        inner_leg = dataclasses.replace(leg, job=found.job, run=found.run)
        if self._extension is not None:
            inner_leg = dataclasses.replace(ours, partitions=(f"replay-{name}",))
        try:
            self._inner.start(inner_leg)
        except BatchkitError:
            if leg.inherited is None:
                failed.remove()
            raise
        return _Claimed(found, name, done, hold, failed)

    @override
    def begin(self, key: BatchKey) -> BatchWriter:
        return self._inner.begin(key)

    @override
    def renew(self, *, for_seconds: float = 0.0) -> None:
        if self._claimed is not None:
            self._inner.renew(for_seconds=for_seconds)
            self._claimed.hold.renew_if_due(for_seconds=for_seconds)

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
        claimed.hold.confirm()
        change = self._place.change(claimed.found, name=claimed.name)
        if replayed and not claimed.done:
            self._prepare(change, claimed, publication)
        published = self._inner.publish(publication)
        claimed.done = True  # from here on a repeated call only ends what is prepared
        if replayed:
            claimed.hold.confirm()
            change.apply()
        claimed.failed.remove()
        return {**published, "replayed": replayed}

    @override
    def release(self) -> None:
        if self._claimed is None:
            return
        self._inner.release()
        try:
            self._claimed.hold.release()
        except BatchkitError as error:
            self._log.warning("%s is not released: %s", self._place.url, error)

    @override
    def close(self) -> None:
        self._inner.close()
        self._place.close()

    def _recover(self, found: LetterSet) -> None:
        """End, or forget, what a leg before this one, or another replay, had prepared."""
        published = "" if self._extension is None else self._extension.replayed
        for name in self._place.prepared(found):
            change = self._place.change(found, name=name)
            if published == f"replay-{name}" or found.replayed == name:
                self._log.info("a replay was cut off behind its publication: its letters are taken out now")
                change.apply()
            else:
                change.discard()

    def _prepare(self, change: Change, claimed: _Claimed, publication: Publication) -> None:
        taken = again = 0

        def lines() -> Iterator[bytes]:
            nonlocal taken, again
            for line in self._place.lines(claimed.found):
                if self._only.replayable(line.letter):
                    taken += 1
                else:
                    yield line.raw
            for raw in claimed.failed.lines(publication.frontier):
                again += 1
                yield raw

        change.prepare(lines())
        counts = publication.counts
        if (taken, again) != (counts["read"], counts["dead_lettered"]):
            raise ReconciliationError(
                f"{counts['read']:,} letters were replayed and {counts['dead_lettered']:,} failed again, but "
                f"{taken:,} and {again:,} are there; nothing is published"
            )
