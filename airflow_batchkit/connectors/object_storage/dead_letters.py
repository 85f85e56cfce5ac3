"""Keeps dead letters as lines of JSON: staged while the run goes on, settled when it ends."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from typing_extensions import override

from airflow_batchkit.connectors.object_storage.final import FinalObjects
from airflow_batchkit.connectors.object_storage.letters_files import LETTERS, STEM
from airflow_batchkit.connectors.object_storage.locations import parse_location, segment
from airflow_batchkit.connectors.object_storage.manifest import ManifestFile
from airflow_batchkit.connectors.object_storage.publish import require_whole_chain
from airflow_batchkit.connectors.object_storage.s3_settings import S3Settings, check_s3_settings
from airflow_batchkit.connectors.object_storage.staging import Staging
from airflow_batchkit.connectors.object_storage.store import ObjectStore, open_store
from airflow_batchkit.engine.dead_letters import DeadLetter, OpenDeadLetters
from airflow_batchkit.engine.exceptions import BatchkitError, ReconciliationError
from airflow_batchkit.engine.sink import BatchKey, Leg, Publication
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.manifest import FoundManifest
    from airflow_batchkit.connectors.object_storage.staging import LegLink
    from airflow_batchkit.engine.source import OpenContext

_EXTENSION = ".ndjson"
_encode_lines = msgspec.json.Encoder().encode_lines


@dataclass(frozen=True, kw_only=True, repr=False)
class DeadLetters(Value):
    """A place for dead letters in a bucket or a folder; many jobs may share it.

    While a run goes on its letters lie in ``<prefix>/<job>/_batchkit/<run>/``; when it ends, in
    ``<prefix>/<job>/<run>/letters-<partition>-<number>-<generation>.ndjson``, listed in ``letters.json``.
    They hold the records' content: protect them like the data itself.

    :param url: ``s3://bucket/prefix`` or ``file:///path``.
    :param conn_id: name of the connection; not used for ``file://``. Default ``aws_default``.
    :param s3_settings: encryption, storage class, ACL, tags, … Default: as the bucket has it.
    """

    __templated__: ClassVar[tuple[str, ...]] = ("url", "conn_id", "s3_settings")

    url: str = field(kw_only=False)
    conn_id: str = "aws_default"
    s3_settings: S3Settings | None = None

    @override
    def check(self) -> None:
        """Refuse a URL that cannot work.

        :raises UsageError: what is wrong with it.
        """
        check_s3_settings(self.s3_settings, parse_location(self.url))

    def open(self, context: OpenContext) -> OpenObjectStorageDeadLetters:
        """Connect and look; writes nothing.

        :raises UsageError: no such bucket, no permission, a path that is no folder.
        :raises TransientError: the store does not answer.
        """
        store = open_store(parse_location(self.url), self.conn_id, context, s3_settings=self.s3_settings)
        try:
            context.log.debug("looks at %s for the dead letters", store.location.url)
            store.check()
        except BatchkitError:
            store.close()
            raise
        return OpenObjectStorageDeadLetters(store, seconds=context.timeouts.batch.total_seconds())


class OpenObjectStorageDeadLetters(OpenDeadLetters):
    """A place for dead letters with its connections made.

    :param store: where they lie.
    :param seconds: the longest time for one copy when settling.
    """

    def __init__(self, store: ObjectStore, *, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._parts: tuple[Leg, Staging, FinalObjects] | None = None

    @override
    def start(self, leg: Leg) -> None:
        job = f"{segment(leg.job)}/"
        staging = Staging(
            self._store, leg, root=job, stem=STEM, extension=_EXTENSION, component="dead_letters"
        )
        final = FinalObjects(
            self._store,
            leg,
            staging,
            folder=f"{job}{leg.run}/",
            manifest=LETTERS,
            seconds=self._seconds,
        )
        staging.start(other_runs=False)
        self._parts = (leg, staging, final)

    @override
    def put(self, key: BatchKey, letters: Sequence[DeadLetter]) -> None:
        _, staging, _ = self._started()
        content = _encode_lines(letters)
        staging.put(key, content, records=len(letters), sha256=hashlib.sha256(content).hexdigest())

    @override
    def settle(self, publication: Publication) -> Mapping[str, Any]:
        leg, staging, final = self._started()
        found = final.found()
        links, complete = staging.chain(publication.frontier)
        if not final.is_visible(found, links, complete=complete):
            self._make_visible(publication, found, links, complete=complete)
            found = final.found()
        count = 0
        if found is not None:
            totals = final.totals()
            final.remove_older(totals, None)
            count = totals.records
        staging.remove_all()
        return {"place": f"{self._store.location.url}/{segment(leg.job)}/{leg.run}", "count": count}

    @override
    def close(self) -> None:
        self._store.close()

    def _make_visible(
        self,
        publication: Publication,
        found: FoundManifest | None,
        links: list[LegLink],
        *,
        complete: bool,
    ) -> None:
        _, _, final = self._started()
        given_up = publication.counts.get("dead_lettered", 0)
        if found is None and given_up == 0:
            return
        require_whole_chain(self._store, complete=complete)
        with ManifestFile() as manifest:
            final.copy(links, manifest, after_each=lambda: None)
            if manifest.records != given_up:
                raise ReconciliationError(
                    f"{given_up:,} records were dead-lettered, but {manifest.records:,} dead letters lie "
                    f"below {self._store.location.url}; nothing is published"
                )
            fields = {"created_at": datetime.now(UTC).isoformat(timespec="seconds")}
            final.switch(manifest, fields, found)

    def _started(self) -> tuple[Leg, Staging, FinalObjects]:
        if self._parts is None:
            raise RuntimeError("start() comes before this call")
        return self._parts
