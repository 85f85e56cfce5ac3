"""A sink in memory that stages and publishes by the same rule as object storage does."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_batchkit.engine.exceptions import PermanentError, SupersededError, TargetHeldError
from airflow_batchkit.engine.failpoints import effect
from airflow_batchkit.engine.types import Record, Rejection, WriteResult
from airflow_batchkit.engine.values import Value
from airflow_batchkit.testing.doubles.parts import chain, counting
from airflow_batchkit.testing.script import Script

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from airflow_batchkit.engine.sink import BatchKey, Inherited, Leg, Publication
    from airflow_batchkit.engine.source import OpenContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a reader of the target sees.

    :param run: which run published it.
    :param generation: the output's name.
    :param tokens: the legs that it was made of.
    :param records: in the order of partitions, legs and batches.
    :param parts: how many batches they came in.
    :param counts: the run's counts as the engine gave them.
    :param fingerprints: the run's fingerprints as the engine gave them.
    """

    run: str
    generation: str
    tokens: frozenset[str]
    records: tuple[Record, ...]
    parts: int
    counts: Mapping[str, int]
    fingerprints: Mapping[str, str]

    @property
    def ids(self) -> list[str]:
        """The records' ids, in order."""
        return [record.id for record in self.records]


class MemoryTarget:
    """What is kept from leg to leg and from run to run.

    ``staged`` holds each durable batch by (token, key), ``published`` what readers see, ``history``
    everything that was ever published.
    Calls in the script: ``"start"``, ``"write"``, ``"renew"``, ``"publish"``, ``"clean"``.

    :param script: failures to play.
    :param rejects: ids of records that the target refuses one by one.
    """

    def __init__(self, script: Script | None = None, *, rejects: Collection[str] = ()) -> None:
        self.script = script or Script()
        self.rejects = set(rejects)
        self.staged: dict[tuple[str, BatchKey], list[Record]] = {}
        self.inherited: dict[str, Inherited | None] = {}
        self.owner: tuple[str, str] | None = None
        self.published: Published | None = None
        self.history: list[Published] = []

    def records(self) -> list[Any]:
        """Return the published records, decoded."""
        published = self.published
        return [] if published is None else [msgspec.json.decode(record.body) for record in published.records]


@dataclass(frozen=True, kw_only=True, repr=False)
class MemorySink(Value):
    """A sink in memory.

    :param target: what is kept from leg to leg.
    :param idempotent: what the engine is told. Default True.
    :param one_write_per_partition: what the engine is told. Default False.
    :param default_batch_bytes: bytes of a batch when the policy does not say. Default 1 MiB.
    :param default_batch_records: records of a batch when the policy does not say. Default: no limit.
    """

    target: MemoryTarget = field(default_factory=MemoryTarget, repr=False)
    idempotent: bool = True
    one_write_per_partition: bool = False
    default_batch_bytes: int = 1024 * 1024
    default_batch_records: int | None = None

    def open(self, context: OpenContext) -> OpenMemorySink:
        """Open the sink; nothing can go wrong."""
        return OpenMemorySink(self.target, context)


class OpenMemorySink:
    """An open :class:`MemorySink`, one per leg."""

    def __init__(self, target: MemoryTarget, context: OpenContext) -> None:
        self.target = target
        self.closed = threading.Event()
        self._state = dict(context.state)
        self._leg: Leg | None = None

    @property
    def leg(self) -> Leg:
        """The leg that :meth:`start` was called with."""
        assert self._leg is not None, "start() comes before everything else"  # noqa: S101  # the double's own contract
        return self._leg

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """The same for every memory sink."""
        return {"target": "memory", "format": "memory"}

    @property
    def environment(self) -> Mapping[str, Any]:
        """Say what it is."""
        return {"sink": "memory"}

    @property
    def state(self) -> Mapping[str, Any]:
        """How many legs there have been: shows that the state comes back."""
        return {"legs": int(self._state.get("legs", 0)) + 1}

    def start(self, leg: Leg) -> None:
        """Own the target; an owner of another run that has not released it holds it."""
        with self.target.script.playing("start", self.closed), effect("sink.start"):
            if self.target.owner is not None and self.target.owner[0] != leg.run:
                message = f"run {self.target.owner[0]} owns the target; wait for it, or stop it"
                raise TargetHeldError(message, 60.0)
            self._leg = leg
            self.target.owner = (leg.run, leg.token)
            self.target.inherited[leg.token] = leg.inherited

    def begin(self, key: BatchKey) -> MemoryWriter:
        """Begin a batch."""
        return MemoryWriter(self, key)

    def renew(self, *, for_seconds: float = 0.0) -> None:
        """Ask whether the target is still this leg's."""
        del for_seconds
        with self.target.script.playing("renew", self.closed):
            self._check_owner()

    def publish(self, publication: Publication) -> Mapping[str, Any]:
        """Replace what readers see in one assignment, then remove what was staged."""
        with self.target.script.playing("publish", self.closed), effect("sink.publish"):
            self._check_owner()
            self._switch(publication)
        with self.target.script.playing("clean", self.closed), effect("sink.clean"):
            self.target.staged.clear()
        published = self.target.published
        return {
            "location": "memory",
            "generation": self.leg.generation,
            "parts": published.parts if published else 0,
        }

    def release(self) -> None:
        """Give the target up, if it is still this leg's."""
        if self.target.owner is not None and self._leg is not None and self.target.owner[1] == self.leg.token:
            with effect("sink.release"):
                self.target.owner = None

    def close(self) -> None:
        """End every hanging call."""
        self.closed.set()

    def _check_owner(self) -> None:
        if self.target.owner != (self.leg.run, self.leg.token):
            message = f"leg {self.leg.token} no longer owns the target; a newer leg took over"
            raise SupersededError(message)

    def _switch(self, publication: Publication) -> None:
        legs = chain(self.leg.token, publication.frontier, self.target.inherited)
        tokens = frozenset(leg.token for leg in legs)
        # Published by an earlier call that was killed before it could say so: what was staged is gone.
        if self.target.published is not None and tokens & self.target.published.tokens:
            return
        names = counting(self.target.staged, legs)
        published = Published(
            run=self.leg.run,
            generation=self.leg.generation,
            tokens=tokens,
            records=tuple(record for name in names for record in self.target.staged[name]),
            parts=len(names),
            counts=dict(publication.counts),
            fingerprints=dict(publication.fingerprints),
        )
        self.target.published = published
        self.target.history.append(published)


class MemoryWriter:
    """One batch of a :class:`MemorySink`."""

    def __init__(self, sink: OpenMemorySink, key: BatchKey) -> None:
        self._sink = sink
        self._key = key
        self._records: list[Record] = []

    def add(self, records: Sequence[Record]) -> None:
        """Take records into the batch."""
        self._records.extend(records)

    def write(self) -> WriteResult:
        """Keep the batch under (token, key); the same key again must hold the same records."""
        target = self._sink.target
        accepted = [record for record in self._records if record.id not in target.rejects]
        rejected = [record for record in self._records if record.id in target.rejects]
        with target.script.playing("write", self._sink.closed):
            if accepted:
                self._keep(accepted)
        return WriteResult(
            written=len(accepted),
            rejected=[
                Rejection(
                    record=record,
                    stage="sink",
                    error_class="record",
                    error_type="Rejected",
                    message="the memory sink was told to reject this record",
                )
                for record in rejected
            ],
        )

    def _keep(self, records: list[Record]) -> None:
        name = (self._sink.leg.token, self._key)
        earlier = self._sink.target.staged.get(name)
        if earlier is not None and [record.id for record in earlier] != [record.id for record in records]:
            message = f"batch {self._key} of leg {name[0]} was written twice with different records"
            raise PermanentError(message)
        with effect("sink.put"):
            self._sink.target.staged[name] = records
