"""Making an output visible in one step; every part of it may be repeated, by this leg or by the next.

1. confirm the ownership; remove staged objects that do not count;
2. copy what counts to its final name, which carries the run's generation;
3. put ``manifest.json`` in place of the one that was found: this one write is the switch; then ``_SUCCESS``;
   read it all back, where that is asked for;
4. remove the objects of older generations, by exact name;
5. remove the staging.

A leg that was superseded in the middle changes nothing: its copies find no source, its switch finds another
manifest, and it removes only what lay there before it began.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_batchkit.connectors.object_storage.manifest import FoundManifest, ManifestFile
from airflow_batchkit.connectors.object_storage.store import (
    SHA256,
    Condition,
    ConflictError,
    MissingObjectError,
)
from airflow_batchkit.connectors.patience import patiently
from airflow_batchkit.engine.exceptions import (
    CannotResumeError,
    PermanentError,
    ReconciliationError,
    StoppedError,
)
from airflow_batchkit.engine.failpoints import effect

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping

    from airflow_batchkit.connectors.object_storage.final import FinalObjects
    from airflow_batchkit.connectors.object_storage.ownership import Ownership
    from airflow_batchkit.connectors.object_storage.staging import LegLink, Staging
    from airflow_batchkit.connectors.object_storage.store import ObjectStore
    from airflow_batchkit.engine.sink import Publication

SUCCESS = "_SUCCESS"


class Publisher:
    """Publishes one run's output for one of its legs.

    :param store: where the output lies.
    :param root: prefix of all keys: empty, or a folder with a slash at its end.
    :param ownership: the leg's hold on the output.
    :param staging: where the batches lie.
    :param final: where they go.
    :param compression: for the manifest.
    :param check: called once the output is visible; raises where it is not what was written. Default: none.
    :param log: where to say what is done.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        root: str,
        ownership: Ownership,
        staging: Staging,
        final: FinalObjects,
        compression: str | None,
        check: Callable[[Publication], None] | None = None,
        log: logging.Logger,
    ) -> None:
        self._store = store
        self._root = root
        self._ownership = ownership
        self._staging = staging
        self._final = final
        self._compression = compression
        self._check = check
        self._log = log

    def publish(self, publication: Publication) -> Mapping[str, Any]:
        """Publish, or go on where an earlier call was cut off.

        :returns: location, manifest, parts, records and bytes of the output.
        :raises SupersededError: another leg owns the output now.
        :raises StoppedError: a stop was asked between two steps.
        :raises ReconciliationError: the parts do not hold as many records as were written.
        """
        found = self._final.found()
        self._ownership.confirm(untidy=None if found is None else found.head.generation)
        links, complete = self._staging.chain(publication.frontier)
        if self._final.is_visible(found, links, complete=complete):
            self._log.info("the output is visible already: only what is left over is removed")
        else:
            require_whole_chain(self._store, complete=complete)
            self._make_visible(publication, found, links)
        self._mark_success()
        stop_if_asked(publication)
        if self._check is None:
            return self._clean()
        self._check(publication)
        return {**self._clean(), "verified": True}

    def _make_visible(
        self, publication: Publication, found: FoundManifest | None, links: list[LegLink]
    ) -> None:
        self._staging.remove_uncounted(links)
        self._log.info("copies the staged parts to %s", self._store.location.url)
        with ManifestFile() as manifest:
            try:
                self._final.copy(links, manifest, after_each=lambda: self._between(publication))
            except MissingObjectError as error:
                self._ownership.confirm()  # a newer leg that has published removes our staging
                raise PermanentError(f"{error}; somebody removed staged parts: restart the run") from error
            written = publication.counts["written"]
            if manifest.records != written:
                raise ReconciliationError(
                    f"{written:,} records were written, but the {manifest.parts:,} staged parts hold "
                    f"{manifest.records:,} (difference {written - manifest.records:+,}); nothing is published"
                )
            stop_if_asked(publication)
            self._ownership.confirm()
            self._final.switch(manifest, self._fields(publication), found)

    def _between(self, publication: Publication) -> None:
        stop_if_asked(publication)
        self._ownership.renew_if_due()

    def _fields(self, publication: Publication) -> dict[str, Any]:
        return {
            **publication.notes,
            "location": f"{self._store.location.url}/{self._root}".rstrip("/"),
            "compression": self._compression,
            "conditional_writes": self._store.conditional,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "counts": dict(publication.counts),
            "fingerprints": dict(publication.fingerprints),
        }

    def _mark_success(self) -> None:
        metadata = {SHA256: hashlib.sha256(b"").hexdigest()}
        with suppress(ConflictError), effect("sink.success"):
            patiently(
                lambda: self._store.put(
                    f"{self._root}{SUCCESS}", b"", metadata=metadata, condition=Condition(), visible=True
                )
            )

    def _clean(self) -> Mapping[str, Any]:
        self._ownership.confirm()
        totals = self._final.totals()
        self._final.remove_older(totals, self._ownership.untidy)
        self._staging.remove_all()
        self._ownership.tidied()
        return {
            "location": f"{self._store.location.url}/{self._root}".rstrip("/"),
            "manifest": self._final.manifest_url,
            "parts": totals.parts.total(),
            "records": totals.records,
            "bytes": totals.nbytes,
        }


def require_whole_chain(store: ObjectStore, *, complete: bool) -> None:
    """Refuse to go on when staged batches of earlier legs were removed.

    :raises CannotResumeError: another run has published here since, or somebody cleaned up.
    """
    if not complete:
        raise CannotResumeError(
            f"what earlier legs of this run had staged below {store.location.url} is gone (another run has "
            "published there since, or somebody removed it): restart the run"
        )


def stop_if_asked(publication: Publication) -> None:
    """End between two steps where a stop is asked.

    :raises StoppedError: with the reason.
    """
    reason = publication.stop_asked()
    if reason is not None:
        raise StoppedError(reason)
