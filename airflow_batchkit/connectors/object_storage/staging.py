"""Where batches lie until they are published: a folder per leg, and the chain that tells which of them count.

Names below the root::

    _batchkit/<run>/<token>/leg.json      the leg before this one, and how far that one had got
    _batchkit/<run>/<token>/part-<partition's position>-<number>.<extension>
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from airflow_batchkit.connectors.object_storage.store import NAME, SHA256, MissingObjectError
from airflow_batchkit.connectors.patience import patiently, some_at_once
from airflow_batchkit.engine.checkpoint import Frontier
from airflow_batchkit.engine.exceptions import PermanentError, TransientError
from airflow_batchkit.engine.failpoints import effect

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.store import ObjectStore
    from airflow_batchkit.engine.sink import BatchKey, Leg

FOLDER = "_batchkit"
PARTIAL_FOLDER = "_partial"
RECORDS = "records"
BYTES = "bytes"
MAX_LEG_BYTES = 64 * 1024

_KEYS_IN_MEMORY = 5_000
_SMALLEST_PAGE, _LARGEST_PAGE = 20, 1_000


class _Previous(msgspec.Struct, frozen=True):
    token: str
    frontier: Frontier


class _LegFile(msgspec.Struct, frozen=True, omit_defaults=True):
    token: str
    previous: _Previous | None = None


@dataclass(frozen=True, slots=True, order=True)
class StagedPart:
    """A staged batch that counts; sorts into the order of publication.

    :param partition: its position.
    :param leg: position of the leg in the chain, the oldest first.
    :param number: number of the batch in that leg.
    :param key: where it lies.
    """

    partition: int
    leg: int
    number: int
    key: str


@dataclass(frozen=True, slots=True)
class LegLink:
    """One leg of the chain, and how far its batches count."""

    token: str
    frontier: Frontier


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedSize:
    """What a staged object holds, as its metadata says."""

    records: int
    nbytes: int
    sha256: str


class Staging:
    """The staged objects of one run, seen from one of its legs.

    :param store: where they lie.
    :param leg: the leg.
    :param root: prefix of all keys: empty, or a folder with a slash at its end.
    :param stem: first word of the objects' names (``part``, ``letters``).
    :param extension: end of their names, with the dot.
    :param component: first word of the effects' names, for the kill-anywhere tests.
    """

    def __init__(
        self, store: ObjectStore, leg: Leg, *, root: str, stem: str, extension: str, component: str
    ) -> None:
        self.stem = stem
        self.extension = extension
        self.component = component
        self._store = store
        self._leg = leg
        self._home = f"{root}{FOLDER}/"
        self._run_folder = f"{self._home}{leg.run}/"
        self._own_folder = self._folder(leg.token)
        self._name = re.compile(rf"{re.escape(stem)}-(\d+)-(\d+)")
        self._older: list[str] = []

    def start(self, *, other_runs: bool) -> None:
        """Note what older legs left, and write this leg's link of the chain.

        Only what lies there now, after this leg took ownership, belongs to legs that are superseded: a folder
        that appears later belongs to a newer leg and is never touched.

        :param other_runs: also of other runs (the target is ours alone), or only of this run.
        """
        runs = patiently(lambda: self._store.folders(self._home)) if other_runs else [self._run_folder]
        for run in runs:
            self._older += [folder for folder in self._folders(run) if folder != self._own_folder]
        before = self._leg.inherited
        previous = None if before is None else _Previous(before.token, before.frontier)
        content = msgspec.json.encode(_LegFile(self._leg.token, previous))
        with effect(f"{self.component}.start"):
            patiently(lambda: self._store.rehearse(f"{self._own_folder}leg.json", content))

    def key(self, key: BatchKey) -> str:
        """Return where a batch of this leg lies."""
        return f"{self._own_folder}{self.stem}-{key.partition:05d}-{key.number:07d}{self.extension}"

    def put(self, key: BatchKey, content: bytes, *, records: int, sha256: str) -> None:
        """Stage one batch; putting it again replaces it by the same."""
        name = self.key(key)
        metadata = {
            RECORDS: str(records),
            BYTES: str(len(content)),
            SHA256: sha256,
            NAME: self.name(name),
        }
        with effect(f"{self.component}.put"):
            self._store.put(name, content, metadata=metadata)

    def name(self, key: str) -> str:
        """Return what a staged object, and each copy of it, is called in its metadata."""
        return key.removeprefix(self._run_folder)

    def size(self, key: str) -> StagedSize:
        """Look up what a staged object holds.

        :raises PermanentError: it is not what was put there.
        """
        # A second look: the answer to the first may have been about another object.
        size = self._described(key) or self._described(key)
        if size is None:
            raise PermanentError(
                f"{self._store.location.url}/{key} has lost its metadata; the store must keep user metadata"
            )
        return size

    def _described(self, key: str) -> StagedSize | None:
        head = self._store.head(key)
        try:
            size = StagedSize(
                records=int(head.metadata[RECORDS]),
                nbytes=int(head.metadata[BYTES]),
                sha256=head.metadata[SHA256],
            )
        except (KeyError, ValueError):
            return None
        if head.metadata.get(NAME, self.name(key)) != self.name(key):
            return None
        if size.nbytes != head.size:
            raise PermanentError(
                f"{self._store.location.url}/{key} has {head.size:,} bytes, but {size.nbytes:,} were written"
            )
        return size

    def chain(self, frontier: Frontier) -> tuple[list[LegLink], bool]:
        """Follow the legs back to the first.

        :param frontier: what counts of this leg's own batches.
        :returns: the legs, newest first, and whether the first was reached (False: a link is gone).
        """
        links = [LegLink(self._leg.token, frontier)]
        inherited = self._leg.inherited
        previous = None if inherited is None else _Previous(inherited.token, inherited.frontier)
        while previous is not None:
            links.append(LegLink(previous.token, previous.frontier))
            try:
                previous = patiently(partial(self._read_link, previous.token)).previous
            except MissingObjectError:
                return links, False
        return links, True

    def counting(self, links: list[LegLink]) -> Iterator[StagedPart]:
        """List the staged objects that count, in the order of publication.

        :param links: the chain, newest first.
        """
        page = max(_SMALLEST_PAGE, min(_LARGEST_PAGE, _KEYS_IN_MEMORY // len(links)))
        return heapq.merge(
            *(self._parts(position, link, page, counts=True) for position, link in enumerate(reversed(links)))
        )

    def remove_uncounted(self, links: list[LegLink]) -> None:
        """Remove what does not count, before anything is copied.

        A leg that sleeps through all this in the middle of its own publication can afterwards only copy what
        counts, under the names that it has here too: it cannot change what is published.
        """
        chained = {self._folder(link.token) for link in links}
        for folder in self._older:
            if folder not in chained:
                self._remove(folder)
        for position, link in enumerate(links):
            self._delete(part.key for part in self._parts(position, link, _LARGEST_PAGE, counts=False))

    def remove_all(self) -> None:
        """Remove all staging that is not newer than this leg, its own last."""
        for folder in self._older:
            self._remove(folder)
        self._remove(self._own_folder)

    def _parts(self, position: int, link: LegLink, page: int, *, counts: bool) -> Iterator[StagedPart]:
        folder = self._folder(link.token)
        for key in self._store.keys(f"{folder}{self.stem}-", page=page):
            found = self._name.match(key, len(folder))
            if found is not None:
                partition, number = int(found[1]), int(found[2])
                if link.frontier.covers(partition, number) is counts:
                    yield StagedPart(partition, position, number, key)

    def _remove(self, folder: str) -> None:
        self._delete(self._store.keys(folder))
        with effect(f"{self.component}.clean"):
            patiently(lambda: self._store.clean(folder))

    def _delete(self, keys: Iterator[str]) -> None:
        for some in some_at_once(keys):
            with effect(f"{self.component}.delete"):
                patiently(partial(self._store.delete, some))

    def _read_link(self, token: str) -> _LegFile:
        key = f"{self._folder(token)}leg.json"
        with self._store.read(key) as reading:
            content = reading.file.read(MAX_LEG_BYTES)
        try:
            link = msgspec.json.decode(content, type=_LegFile)
        except msgspec.DecodeError:
            link = None
        if link is None or link.token != token:
            raise TransientError(
                f"read of {self._store.location.url}/{key}: what came is not about this leg; may work when "
                "tried again"
            )
        return link

    def _folders(self, run: str) -> list[str]:
        return patiently(lambda: self._store.folders(run))

    def _folder(self, token: str) -> str:
        return f"{self._run_folder}{token}/"
