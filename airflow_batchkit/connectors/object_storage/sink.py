"""Writes records as lines of JSON into objects of a bucket or files of a folder."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from typing_extensions import override

from airflow_batchkit.connectors.letters.place import Shown
from airflow_batchkit.connectors.object_storage.compression import (
    EXTENSIONS,
    check_compression,
    make_compressor,
)
from airflow_batchkit.connectors.object_storage.final import MAX_PARTS, TOO_MANY_PARTS, FinalObjects
from airflow_batchkit.connectors.object_storage.locations import parse_location
from airflow_batchkit.connectors.object_storage.manifest import MANIFEST, read_head
from airflow_batchkit.connectors.object_storage.ndjson import FORMAT, FORMAT_VERSION, format_lines
from airflow_batchkit.connectors.object_storage.ownership import Ownership
from airflow_batchkit.connectors.object_storage.publish import Publisher, require_whole_chain
from airflow_batchkit.connectors.object_storage.s3_settings import S3Settings, check_s3_settings
from airflow_batchkit.connectors.object_storage.staging import PARTIAL_FOLDER, Staging
from airflow_batchkit.connectors.object_storage.store import ObjectStore, open_store
from airflow_batchkit.connectors.patience import patiently
from airflow_batchkit.engine.exceptions import BatchkitError, PermanentError, UsageError
from airflow_batchkit.engine.sink import BatchKey, BatchWriter, Leg, OpenSink, Publication
from airflow_batchkit.engine.types import Record, WriteResult
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.connectors.letters.place import OpenExtension
    from airflow_batchkit.connectors.object_storage.verify.published import PublishedCheck
    from airflow_batchkit.engine.kept_values import KeptValues
    from airflow_batchkit.engine.source import OpenContext

T = TypeVar("T")

_RECORDS_AT_ONCE = 500
_DIGITS = 12


@dataclass(frozen=True, kw_only=True, repr=False)
class ObjectStorageSink(Value):
    """Objects of a bucket (``s3://``) or files of a folder (``file://``), one JSON object per line.

    A batch is one object. Objects lie under a staging prefix until the run ends; then they become visible in
    one step, by ``manifest.json``, and replace what the prefix held of an earlier run.

    :param url: ``s3://bucket/prefix`` or ``file:///path``; the prefix belongs to one job.
    :param conn_id: name of the connection; not used for ``file://``. Default ``aws_default``.
    :param compression: ``"gzip"``, ``"zstd"`` (needs the extra ``zstd``) or None. Default gzip.
    :param verify_output: read everything back once it is published, before what is older is removed, and fail
        the run where it is not what was written. Takes 8 bytes per record in the temporary folder. Default
        False.
    :param s3_settings: encryption, storage class, ACL, tags, … Default: as the bucket has it.
    """

    __templated__: ClassVar[tuple[str, ...]] = ("url", "conn_id", "s3_settings")

    idempotent: ClassVar[bool] = True
    one_write_per_partition: ClassVar[bool] = False
    default_batch_bytes: ClassVar[int] = 16 * 1024 * 1024
    default_batch_records: ClassVar[int | None] = None

    url: str
    conn_id: str = "aws_default"
    compression: str | None = "gzip"
    verify_output: bool = False
    s3_settings: S3Settings | None = None

    @override
    def check(self) -> None:
        """Refuse a URL or a compression that cannot work.

        :raises UsageError: which, and what it may be.
        """
        check_s3_settings(self.s3_settings, parse_location(self.url))
        settings = self.s3_settings
        if self.verify_output and settings is not None and settings.archives:
            raise UsageError(
                f"verify_output=True: parts cannot be read back from storage_class={settings.storage_class!r}"
            )
        check_compression(self.compression)

    def open(self, context: OpenContext) -> OpenObjectStorageSink:
        """Connect and look; writes nothing.

        :raises UsageError: no such bucket, no permission, a path that is no folder.
        :raises TransientError: the store does not answer.
        """
        store = self._store(context)
        try:
            context.log.debug("looks at %s", store.location.url)
            store.check()
        except BatchkitError:
            store.close()
            raise
        return OpenObjectStorageSink(
            store,
            compression=self.compression,
            verify_output=self.verify_output,
            seconds=context.timeouts.batch.total_seconds(),
            log=context.log,
        )

    def open_values(self, context: OpenContext) -> KeptValues:
        """Make the place for a checkpoint beside the output; asks nothing of it yet."""
        from airflow_batchkit.connectors.object_storage.kept_values import ObjectValues

        return ObjectValues(self._store(context))

    def shown(self, context: OpenContext) -> Shown | None:
        """Look which output is published, None where there is none."""
        store = self._store(context)
        with closing(store):
            found = patiently(lambda: read_head(store, MANIFEST))
        if found is None:
            return None
        head = found.head
        return Shown(url=store.location.url, job=head.job, run=head.run, generation=head.generation)

    def open_extension(self, context: OpenContext) -> OpenExtension:
        """Connect to the published output, to add to it; writes nothing.

        :raises UsageError: nothing is published, no such bucket, no permission.
        :raises TransientError: the store does not answer.
        """
        from airflow_batchkit.connectors.object_storage.extension import OpenOutputExtension

        store = self._store(context)
        try:
            store.check()
            return OpenOutputExtension(
                store,
                state=context.state,
                seconds=context.timeouts.batch.total_seconds(),
                log=context.log,
            )
        except BatchkitError:
            store.close()
            raise

    def _store(self, context: OpenContext) -> ObjectStore:
        return open_store(parse_location(self.url), self.conn_id, context, s3_settings=self.s3_settings)


class OpenObjectStorageSink(OpenSink):
    """An output with its connections made.

    :param store: where the output lies.
    :param compression: as in :class:`ObjectStorageSink`.
    :param verify_output: as in :class:`ObjectStorageSink`.
    :param seconds: the longest time for one copy when publishing.
    :param log: where to say what is done.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        compression: str | None,
        verify_output: bool = False,
        seconds: float,
        log: logging.Logger,
    ) -> None:
        self._store = store
        self._compression = compression
        self._verify_output = verify_output
        self._seconds = seconds
        self._log = log
        self._ownership: Ownership | None = None
        self._staging: Staging | None = None
        self._publisher: Publisher | None = None

    @property
    @override
    def fingerprints(self) -> Mapping[str, str]:
        return {
            "target": _short(self._store.location.url),
            "format": _short(f"{FORMAT} {FORMAT_VERSION} {self._compression}"),
        }

    @property
    @override
    def environment(self) -> Mapping[str, Any]:
        return {"location": self._store.location.url, "format": FORMAT, "compression": self._compression}

    @property
    @override
    def state(self) -> Mapping[str, Any]:
        return {}

    @override
    def start(self, leg: Leg) -> None:
        root = f"{PARTIAL_FOLDER}/{leg.run}/" if leg.mode == "partial" else ""
        staging = Staging(
            self._store,
            leg,
            root=root,
            stem="part",
            extension=f".{FORMAT}{EXTENSIONS[self._compression]}",
            component="sink",
        )
        final = FinalObjects(self._store, leg, staging, folder=root, manifest=MANIFEST, seconds=self._seconds)
        found = final.found()
        ownership = Ownership(self._store, leg, root=root)
        ownership.claim()
        self._ownership = ownership
        try:
            if leg.inherited is not None:
                links, complete = staging.chain(leg.inherited.frontier.for_new_leg())
                visible = final.is_visible(found, links, complete=complete)
                if not visible and not complete:
                    # Another leg may have published since this one looked: it has taken over, or all is done.
                    ownership.confirm()
                    visible = final.is_visible(final.found(), links, complete=complete)
                if not visible:
                    require_whole_chain(self._store, complete=complete)
            staging.start(other_runs=True)
        except (PermanentError, UsageError):
            # It will fail in the same way until a person has mended something: others need not wait so long.
            self.release()
            raise
        self._staging = staging
        self._publisher = Publisher(
            self._store,
            root=root,
            ownership=ownership,
            staging=staging,
            final=final,
            compression=self._compression,
            check=self._check(leg, ownership, root) if self._verify_output else None,
            log=self._log,
        )

    def _check(self, leg: Leg, ownership: Ownership, root: str) -> PublishedCheck:
        from airflow_batchkit.connectors.object_storage.verify.published import PublishedCheck

        return PublishedCheck(
            self._store, leg, root=root, ownership=ownership, seconds=self._seconds, log=self._log
        )

    @override
    def begin(self, key: BatchKey) -> BatchWriter:
        if key.number > MAX_PARTS:
            raise PermanentError(TOO_MANY_PARTS)
        return PartWriter(_started(self._staging), key, compression=self._compression)

    @override
    def renew(self, *, for_seconds: float = 0.0) -> None:
        _started(self._ownership).renew_if_due(for_seconds=for_seconds)

    @override
    def publish(self, publication: Publication) -> Mapping[str, Any]:
        return _started(self._publisher).publish(publication)

    @override
    def release(self) -> None:
        if self._ownership is None:
            return
        try:
            self._ownership.release()
        except BatchkitError as error:
            self._log.warning(
                "%s is not released, its lease runs out by itself: %s", self._store.location.url, error
            )

    @override
    def close(self) -> None:
        self._store.close()


class PartWriter(BatchWriter):
    """One batch on its way into one staged object: formatted and compressed as it fills.

    :param staging: where it goes.
    :param key: which batch.
    :param compression: as in :class:`ObjectStorageSink`.
    """

    def __init__(self, staging: Staging, key: BatchKey, *, compression: str | None) -> None:
        self._staging = staging
        self._key = key
        self._compressor = make_compressor(compression)
        self._buffer = io.BytesIO()
        self._records = 0
        self._content: bytes | None = None
        self._durable = False

    @override
    def add(self, records: Sequence[Record]) -> None:
        for start in range(0, len(records), _RECORDS_AT_ONCE):
            lines = format_lines(records[start : start + _RECORDS_AT_ONCE])
            self._buffer.write(self._compressor.compress(lines))
        self._records += len(records)

    @override
    def write(self) -> WriteResult:
        if self._records == 0 or self._durable:
            return WriteResult(written=self._records)
        if self._content is None:
            self._buffer.write(self._compressor.flush())
            self._content = self._buffer.getvalue()
        digest = hashlib.sha256(self._content).hexdigest()
        self._staging.put(self._key, self._content, records=self._records, sha256=digest)
        # The batch is known until its window is committed; what it held is needed no longer.
        self._durable, self._buffer, self._content = True, io.BytesIO(), None
        return WriteResult(written=self._records)


def _started(part: T | None) -> T:
    if part is None:
        raise RuntimeError("start() comes before this call")
    return part


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
