"""The final objects of an output and its manifest: copied from the staging, named by the run's generation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_batchkit.connectors.object_storage.manifest import (
    FoundManifest,
    ManifestFile,
    Part,
    read_head,
    read_parts,
)
from airflow_batchkit.connectors.object_storage.store import (
    NAME,
    SHA256,
    Condition,
    ConflictError,
    MissingObjectError,
)
from airflow_batchkit.connectors.patience import in_order, patiently, some_at_once
from airflow_batchkit.engine.exceptions import PermanentError, TransientError
from airflow_batchkit.engine.failpoints import effect

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.staging import LegLink, StagedPart, Staging
    from airflow_batchkit.connectors.object_storage.store import ObjectStore
    from airflow_batchkit.engine.sink import Leg

MAX_PARTS = 90_000
TOO_MANY_PARTS = (
    f"more than {MAX_PARTS:,} objects for one partition: raise BatchPolicy.max_bytes (16 MiB unless told "
    "otherwise), or split the source into more partitions"
)
_COPIES_AT_ONCE = 8


@dataclass(slots=True)
class Totals:
    """What a manifest names.

    :param parts: how many by partition; a partition's parts are numbered from 1 without gaps.
    :param records: lines of all parts.
    :param nbytes: size of all parts.
    """

    parts: Counter[str] = field(default_factory=Counter)
    records: int = 0
    nbytes: int = 0


class FinalObjects:
    """Where one leg puts its run's final objects, and how they are named.

    :param store: where they lie.
    :param leg: the leg.
    :param staging: where they come from.
    :param folder: prefix of their keys: empty, or a folder with a slash at its end.
    :param manifest: name of the manifest in it.
    :param seconds: the longest time for one copy.
    """

    def __init__(
        self, store: ObjectStore, leg: Leg, staging: Staging, *, folder: str, manifest: str, seconds: float
    ) -> None:
        self._store = store
        self._leg = leg
        self._staging = staging
        self._folder = folder
        self._manifest = f"{folder}{manifest}"
        self._seconds = seconds
        self._name = re.compile(
            rf"{re.escape(staging.stem)}-(?P<partition>.+)-(?P<number>\d{{5}})-(?P<generation>[0-9a-f]{{8}})\."
        )

    @property
    def manifest_url(self) -> str:
        """Where the manifest lies."""
        return f"{self._store.location.url}/{self._manifest}"

    def found(self) -> FoundManifest | None:
        """Read which output is visible now, None when there is none."""
        return patiently(lambda: read_head(self._store, self._manifest))

    def is_visible(self, found: FoundManifest | None, links: list[LegLink], *, complete: bool) -> bool:
        """Tell whether the visible output is this run's, whole: an earlier leg was killed after its switch.

        :param links: the chain of legs, newest first.
        :param complete: False when the chain is cut, because the cleaning up had begun.
        """
        if found is None or (found.head.run, found.head.generation) != (self._leg.run, self._leg.generation):
            return False
        tokens = [link.token for link in links]
        if found.head.token in tokens:
            newer = links[: tokens.index(found.head.token)]
        elif complete:
            return False
        else:
            newer = links
        return not newer or next(self._staging.counting(newer), None) is None

    def copy(self, links: list[LegLink], manifest: ManifestFile, *, after_each: Callable[[], None]) -> None:
        """Copy what counts to its final names, a few at a time, and note it in the manifest.

        :param after_each: called in this thread after each copy; may raise.
        :raises PermanentError: a partition has more than 90,000 parts.
        :raises MissingObjectError: a staged object is gone.
        """
        copies = in_order(
            self._copy_one, self._numbered(links), threads=_COPIES_AT_ONCE, seconds=self._seconds
        )
        for part in copies:
            manifest.add(part)
            after_each()

    def switch(self, manifest: ManifestFile, fields: Mapping[str, Any], found: FoundManifest | None) -> None:
        """Make the copied objects the visible output, in one write.

        :param fields: what the manifest says besides its parts.
        :param found: the manifest to replace; None: there must be none.
        :raises TransientError: somebody else changed the manifest: look again whether the output is ours.
        """
        leg = self._leg
        head = {"job": leg.job, "run": leg.run, "generation": leg.generation, "token": leg.token, **fields}
        file = manifest.finish(head)
        condition = Condition(etag=None if found is None else found.etag)
        try:
            with effect(f"{self._staging.component}.switch"):
                patiently(
                    lambda: self._store.put(
                        self._manifest,
                        file,
                        metadata={SHA256: manifest.sha256},
                        condition=condition,
                        visible=True,
                    )
                )
        except ConflictError as error:
            raise TransientError(f"{self.manifest_url} was changed while this leg published") from error

    def totals(self) -> Totals:
        """Add up what the manifest names, which has to be of this run's generation.

        :raises TransientError: it is of another: what is older must not be removed yet.
        """
        totals = Totals()
        for part in read_parts(self._store, self._manifest, generation=self._leg.generation):
            totals.parts[part.partition] += 1
            totals.records += part.records
            totals.nbytes += part.bytes
        return totals

    def remove_older(self, totals: Totals, generations: Collection[str] | None) -> None:
        """Remove objects of older generations, and those of this one that the manifest does not name.

        Only names that this package makes are touched.

        :param totals: what the manifest names.
        :param generations: the older generations; None: any other than this run's.
        """
        for names in some_at_once(self._older(totals, generations)):
            with effect(f"{self._staging.component}.tidy"):
                patiently(partial(self._store.delete, names))

    def _older(self, totals: Totals, generations: Collection[str] | None) -> Iterator[str]:
        for key in self._store.keys(f"{self._folder}{self._staging.stem}-"):
            name = self._name.match(key, len(self._folder))
            if name is None or "/" in key[len(self._folder) :]:
                continue
            if name["generation"] == self._leg.generation:
                if int(name["number"]) > totals.parts[name["partition"]]:
                    yield key
            elif generations is None or name["generation"] in generations:
                yield key

    def _numbered(self, links: list[LegLink]) -> Iterator[tuple[StagedPart, int]]:
        partition, number = -1, 0
        for staged in self._staging.counting(links):
            number = number + 1 if staged.partition == partition else 1
            partition = staged.partition
            if number > MAX_PARTS:
                raise PermanentError(TOO_MANY_PARTS)
            yield staged, number

    def _copy_whole(self, source: str, target: str, nbytes: int) -> None:
        """Copy, and look whether it is there: on the store's word alone a manifest could name what is not."""
        self._store.copy(source, target)
        try:
            head = self._store.head(target)
        except MissingObjectError:
            head = None
        name = self._staging.name(source)
        if head is None or head.size != nbytes or head.metadata.get(NAME, name) != name:
            raise TransientError(
                f"copy of {self._store.location.url}/{source} to {target}: it is not there; may work when "
                "tried again"
            )

    def _copy_one(self, numbered: tuple[StagedPart, int]) -> Part:
        staged, number = numbered
        partition = self._leg.partitions[staged.partition]
        name = (
            f"{self._staging.stem}-{partition}-{number:05d}-{self._leg.generation}{self._staging.extension}"
        )
        size = patiently(lambda: self._staging.size(staged.key))
        with effect(f"{self._staging.component}.copy"):
            patiently(lambda: self._copy_whole(staged.key, f"{self._folder}{name}", size.nbytes))
        return Part(
            key=name, partition=partition, records=size.records, bytes=size.nbytes, sha256=size.sha256
        )
