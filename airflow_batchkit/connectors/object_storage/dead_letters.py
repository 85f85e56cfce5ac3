"""Keeps dead letters as lines of JSON: staged while the run goes on, settled when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from airflow_batchkit.connectors.letters.place import typed_url
from airflow_batchkit.connectors.object_storage.final import FinalObjects
from airflow_batchkit.connectors.object_storage.letters_files import LETTERS, STEM
from airflow_batchkit.connectors.object_storage.letters_place import EXTENSION, ObjectLetters, put_letters
from airflow_batchkit.connectors.object_storage.locations import parse_location, segment
from airflow_batchkit.connectors.object_storage.manifest import ManifestFile
from airflow_batchkit.connectors.object_storage.publish import require_whole_chain, stop_if_asked
from airflow_batchkit.connectors.object_storage.s3_settings import S3Settings, check_s3_settings
from airflow_batchkit.connectors.object_storage.staging import PARTIAL_FOLDER, Staging
from airflow_batchkit.connectors.object_storage.store import ObjectStore, open_store
from airflow_batchkit.engine.dead_letters import DeadLetter, OpenDeadLetters
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    PermanentError,
    ReconciliationError,
    SupersededError,
)
from airflow_batchkit.engine.sink import BatchKey, Leg, Publication
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.manifest import FoundManifest
    from airflow_batchkit.connectors.object_storage.staging import LegLink
    from airflow_batchkit.engine.source import OpenContext


@dataclass(frozen=True, kw_only=True, repr=False)
class DeadLetters(Value):
    """A place for dead letters in a bucket or a folder; many jobs may share it.

    While a run goes on its letters lie in ``<prefix>/<job>/_batchkit/<run>/``; when it ends, in
    ``<prefix>/<job>/<run>/letters-<partition>-<number>-<generation>.ndjson``, listed in ``letters.json``.
    Those of a run over a part lie below ``<prefix>/_partial/`` in the same way. They hold the records'
    content: protect them like the data itself.

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
        store = self._store(context)
        try:
            context.log.debug("looks at %s for the dead letters", store.location.url)
            store.check()
        except BatchkitError:
            store.close()
            raise
        return OpenObjectStorageDeadLetters(
            store,
            url=typed_url(store.location.url, self.conn_id),
            seconds=context.timeouts.batch.total_seconds(),
        )

    def open_letters(self, context: OpenContext) -> ObjectLetters:
        """Connect, to look at the letters that are kept there."""
        return ObjectLetters(self._store(context))

    def _store(self, context: OpenContext) -> ObjectStore:
        return open_store(parse_location(self.url), self.conn_id, context, s3_settings=self.s3_settings)


class OpenObjectStorageDeadLetters(OpenDeadLetters):
    """A place for dead letters with its connections made.

    :param store: where they lie.
    :param url: the place, as the command line takes it.
    :param seconds: the longest time for one copy when settling.
    """

    def __init__(self, store: ObjectStore, *, url: str, seconds: float) -> None:
        self._store = store
        self._url = url
        self._seconds = seconds
        self._parts: tuple[Leg, Staging, FinalObjects] | None = None

    @property
    @override
    def url(self) -> str:
        return self._url

    @override
    def start(self, leg: Leg) -> None:
        job = _job_folder(leg)
        staging = Staging(
            self._store, leg, root=job, stem=STEM, extension=EXTENSION, component="dead_letters"
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
        put_letters(staging, key, letters)

    @override
    def settle(self, publication: Publication) -> Mapping[str, Any]:
        leg, staging, final = self._started()
        found = final.found()
        links, whole = staging.chain(publication.frontier)
        is_shown = final.is_visible(found, links, complete=whole)
        if found is None or not found.head.complete or not is_shown:
            self._make_visible(publication, found, links, whole=whole, complete=True)
            found = final.found()
        count = 0
        if found is not None:
            totals = final.totals()
            final.remove_older(totals, None)
            count = totals.records
        staging.remove_all()
        return {"place": f"{self._store.location.url}/{_job_folder(leg)}{leg.run}", "count": count}

    @override
    def reveal(self, publication: Publication) -> int:
        """Copy what counts to its final place, and name it as of a run that has not completed.

        :raises PermanentError: the letters of an output that is published lie there.
        :raises SupersededError: a newer leg has shown its own.
        """
        _, staging, final = self._started()
        found = final.found()
        links, whole = staging.chain(publication.frontier)
        if not final.is_visible(found, links, complete=whole):
            if found is not None:
                self._refuse_to_replace(found, links)
            # Nothing is removed: where this leg has slept, a newer one may be at work beside it.
            self._make_visible(publication, found, links, whole=whole, complete=False)
        return final.totals().records

    @override
    def close(self) -> None:
        self._store.close()

    def _refuse_to_replace(self, found: FoundManifest, links: list[LegLink]) -> None:
        leg, _, final = self._started()
        head = found.head
        if (head.run, head.generation) == (leg.run, leg.generation):
            if head.token not in {link.token for link in links}:
                raise SupersededError(f"leg {head.token} has shown the dead letters of this run since")
        elif head.complete:
            raise PermanentError(
                f"{final.manifest_url} names the letters of an output that is published: those of this run "
                "stay in its staging until it completes"
            )

    def _make_visible(
        self,
        publication: Publication,
        found: FoundManifest | None,
        links: list[LegLink],
        *,
        whole: bool,
        complete: bool,
    ) -> None:
        _, _, final = self._started()
        given_up = publication.counts.get("dead_lettered", 0)
        if found is None and given_up == 0:
            return
        require_whole_chain(self._store, complete=whole)
        with ManifestFile() as manifest:
            final.copy(links, manifest, after_each=lambda: stop_if_asked(publication))
            if manifest.records != given_up:
                raise ReconciliationError(
                    f"{given_up:,} records were dead-lettered, but {manifest.records:,} dead letters lie "
                    f"below {self._store.location.url}; nothing is published"
                )
            created_at = datetime.now(UTC).isoformat(timespec="seconds")
            final.switch(manifest, {"created_at": created_at, "complete": complete}, found)

    def _started(self) -> tuple[Leg, Staging, FinalObjects]:
        if self._parts is None:
            raise RuntimeError("start() comes before this call")
        return self._parts


def _job_folder(leg: Leg) -> str:
    # A run over a part may have the name of a whole one, whose letters are not its to replace.
    above = f"{PARTIAL_FOLDER}/" if leg.mode == "partial" else ""
    return f"{above}{segment(leg.job)}/"
