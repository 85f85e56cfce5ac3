"""Adds a replay's records to a published output: same generation, corrected counts, one switch.

The parts lie beside the others as ``part-replay-<replay>-<number>-<generation>.…``; ``manifest.json`` names
them behind those that it named before. It also names the replay: so a replay that was killed behind the
switch is known to be done, and its letters are taken out of their place, not added again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from typing_extensions import override

from airflow_batchkit.connectors.letters.place import OpenExtension
from airflow_batchkit.connectors.object_storage.compression import EXTENSIONS
from airflow_batchkit.connectors.object_storage.final import MAX_PARTS, TOO_MANY_PARTS, FinalObjects
from airflow_batchkit.connectors.object_storage.manifest import MANIFEST, FoundManifest, ManifestFile
from airflow_batchkit.connectors.object_storage.ndjson import FORMAT
from airflow_batchkit.connectors.object_storage.ownership import Ownership
from airflow_batchkit.connectors.object_storage.publish import require_whole_chain
from airflow_batchkit.connectors.object_storage.sink import PartWriter
from airflow_batchkit.connectors.object_storage.staging import Staging
from airflow_batchkit.connectors.object_storage.verify.declared import (
    BadManifestError,
    OutputHead,
    read_declared,
)
from airflow_batchkit.connectors.patience import patiently
from airflow_batchkit.engine.checkpoint import Counts
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    CannotResumeError,
    PermanentError,
    ReconciliationError,
    StoppedError,
    UsageError,
)
from airflow_batchkit.engine.sink import BatchKey, BatchWriter, Leg, Publication

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_batchkit.connectors.object_storage.store import ObjectStore
    from airflow_batchkit.connectors.object_storage.verify.declared import Declared

_BY_MANIFEST_FILE = {"format", "format_version", "total"}


class ExtendedHead(OutputHead, kw_only=True, frozen=True):
    """Head of a ``manifest.json`` that a replay may have extended.

    :param replayed: the replay that added the last records.
    """

    replayed: str = ""


@dataclass(slots=True)
class _Started:
    leg: Leg
    ownership: Ownership
    staging: Staging
    final: FinalObjects


class OpenOutputExtension(OpenExtension):
    """A published output with its connections made, to be extended by one replay.

    :param store: where the output lies.
    :param state: what the leg before left: which manifest the replay found when it began.
    :param seconds: the longest time for one copy.
    :param log: where to say what is done.
    """

    def __init__(
        self, store: ObjectStore, *, state: Mapping[str, Any], seconds: float, log: logging.Logger
    ) -> None:
        self._store = store
        self._seconds = seconds
        self._log = log
        with self._declared() as declared:
            self._compression = declared.head.compression
            self._etag = str(state.get("etag") or declared.etag)
        self._parts: _Started | None = None

    @property
    @override
    def fingerprints(self) -> Mapping[str, str]:
        return {"target": self._store.location.url, "format": f"{FORMAT} {self._compression}"}

    @property
    @override
    def environment(self) -> Mapping[str, Any]:
        return {"extends": self._store.location.url, "format": FORMAT, "compression": self._compression}

    @property
    @override
    def state(self) -> Mapping[str, Any]:
        return {"etag": self._etag}

    @property
    @override
    def replayed(self) -> str:
        with self._declared() as declared:
            return declared.head.replayed

    @override
    def start(self, leg: Leg) -> None:
        """Take ownership of the output.

        :param leg: of the replay; ``job`` and ``generation`` are the output's, the one partition is named as
            the new parts are to be.
        """
        staging = Staging(
            self._store,
            leg,
            root="",
            stem="part",
            extension=f".{FORMAT}{EXTENSIONS[self._compression]}",
            component="sink",
        )
        final = FinalObjects(self._store, leg, staging, folder="", manifest=MANIFEST, seconds=self._seconds)
        ownership = Ownership(self._store, leg, root="")
        ownership.claim()
        self._parts = _Started(leg, ownership, staging, final)
        try:
            with self._declared() as declared:
                self._same_output(declared)
            staging.start(other_runs=False)
        except (PermanentError, UsageError):
            self.release()
            raise

    @override
    def begin(self, key: BatchKey) -> BatchWriter:
        if key.number > MAX_PARTS:
            raise PermanentError(TOO_MANY_PARTS)
        return PartWriter(self._started().staging, key, compression=self._compression)

    @override
    def renew(self, *, for_seconds: float = 0.0) -> None:
        self._started().ownership.renew_if_due(for_seconds=for_seconds)

    @override
    def publish(self, publication: Publication) -> Mapping[str, Any]:
        """Add what the replay wrote, or do nothing where an earlier leg has done so.

        :raises PermanentError: another output is published there by now.
        :raises ReconciliationError: the parts do not hold as many records as were written.
        """
        started = self._started()
        started.ownership.confirm()
        with self._declared() as declared:
            self._same_output(declared)
            if publication.counts["read"] and declared.head.replayed != self.name:
                self._extend(declared, publication, started)
        started.staging.remove_all()
        with self._declared() as declared:
            total = declared.head.total
        return {
            "location": self._store.location.url,
            "manifest": started.final.manifest_url,
            "parts": total.parts,
            "records": total.records,
            "bytes": total.bytes,
            "added": publication.counts["written"],
        }

    @override
    def release(self) -> None:
        if self._parts is None:
            return
        try:
            self._parts.ownership.release()
        except BatchkitError as error:
            self._log.warning(
                "%s is not released, its lease runs out by itself: %s", self._store.location.url, error
            )

    @override
    def close(self) -> None:
        self._store.close()

    @property
    def name(self) -> str:
        """The replay, as the manifest names it."""
        return self._started().leg.partitions[0]

    def _extend(self, declared: Declared[ExtendedHead], publication: Publication, started: _Started) -> None:
        links, complete = started.staging.chain(publication.frontier)
        require_whole_chain(self._store, complete=complete)
        started.staging.remove_uncounted(links)

        def between() -> None:
            reason = publication.stop_asked()
            if reason is not None:
                raise StoppedError(reason)
            started.ownership.renew_if_due()

        with ManifestFile() as manifest:
            for part in declared.parts():
                manifest.add(part)
            before = manifest.records
            if before != declared.head.total.records:
                raise PermanentError(
                    f"the manifest at {self._store.location.url} does not add up; nothing was added: look at "
                    "it with batchkit verify"
                )
            started.final.copy(links, manifest, after_each=between)
            added, written = manifest.records - before, publication.counts["written"]
            if added != written:
                raise ReconciliationError(
                    f"{written:,} records were written again, but the staged parts hold {added:,}; nothing "
                    "was added"
                )
            started.ownership.confirm()
            head = declared.head
            found = FoundManifest(head=head, etag=declared.etag)
            started.final.switch(manifest, self._fields(declared, publication), found)

    def _fields(self, declared: Declared[ExtendedHead], publication: Publication) -> dict[str, Any]:
        head = declared.head
        counts = corrected(msgspec.convert(head.counts, Counts), publication.counts)
        counted = {**msgspec.structs.asdict(counts), "dead_lettered": counts.dead_lettered}
        return {
            **{name: value for name, value in declared.fields.items() if name not in _BY_MANIFEST_FILE},
            "counts": counted,
            "dead_letters": {**head.dead_letters, "count": counts.dead_lettered},
            "replayed": self.name,
            "replayed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _same_output(self, declared: Declared[ExtendedHead]) -> None:
        leg, head = self._started().leg, declared.head
        if (head.job, head.generation) != (leg.job, leg.generation):
            raise PermanentError(
                f"{self._store.location.url} shows run {head.run} ({head.generation}) of {head.job!r} now, "
                f"not {leg.generation}: the letters are stale; nothing was added"
            )
        if declared.etag != self._etag and head.replayed != self.name:
            raise CannotResumeError(
                f"the output at {self._store.location.url} was changed since this replay began (by "
                f"{head.replayed or 'somebody'}): restart the replay"
            )

    @contextmanager
    def _declared(self) -> Iterator[Declared[ExtendedHead]]:
        try:
            with patiently(lambda: read_declared(self._store, MANIFEST, ExtendedHead)) as declared:
                yield declared
        except BadManifestError as error:
            raise PermanentError(
                f"{self._store.location.url}/{MANIFEST} {error}; nothing was added: restore it from a backup"
            ) from error

    def _started(self) -> _Started:
        if self._parts is None:
            raise RuntimeError("start() comes before this call")
        return self._parts


def corrected(counts: Counts, replay: Mapping[str, int]) -> Counts:
    """Return an output's counts as if what a replay did had been done by the run itself.

    A replay reads letters, each of which the run had read, and given up in its transform: both are taken
    back, and what became of the letter this time counts instead. So both ends still add up.
    """
    again = msgspec.convert(dict(replay), Counts, strict=False)
    result = msgspec.structs.replace(counts)
    result.add(again)
    result.read -= again.read
    result.dead_lettered_by_transform -= again.read
    result.bytes_read -= again.bytes_read
    result.batches -= again.batches
    return result
