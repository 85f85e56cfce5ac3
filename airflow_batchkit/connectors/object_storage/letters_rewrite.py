"""Changes a settled set in two steps, so that a kill between any two writes loses no letter.

1. *prepare*: what it is to be is written into new objects, and ``letters.next-<change>.json`` names them;
2. *apply*: its content replaces ``letters.json`` in one conditional write; then what is old is removed.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING

from typing_extensions import override

from airflow_batchkit.connectors.letters.place import Change, LetterSet, changed
from airflow_batchkit.connectors.object_storage.letters_files import LETTERS, STEM, declared, read_set
from airflow_batchkit.connectors.object_storage.manifest import ManifestFile, Part
from airflow_batchkit.connectors.object_storage.store import (
    SHA256,
    Condition,
    ConflictError,
    MissingObjectError,
)
from airflow_batchkit.connectors.patience import patiently, some_at_once
from airflow_batchkit.engine.exceptions import SupersededError
from airflow_batchkit.engine.failpoints import effect

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.store import ObjectStore

_NEXT = "letters.next-"
_PART_BYTES = 8 * 1024 * 1024
_IN_MEMORY = 1024 * 1024
_PIECE = 256 * 1024
_OURS = re.compile(rf"{STEM}-(?P<partition>.+)-(?P<number>\d{{5}})-(?P<generation>[0-9a-f]{{8}})\.ndjson")


class LetterRewrite(Change):
    """One change of one set.

    :param store: the place.
    :param found: the set as it is before the change.
    :param name: names the change, and the objects that it writes; 8 hex digits.
    """

    def __init__(self, store: ObjectStore, found: LetterSet, *, name: str) -> None:
        self._store = store
        self._set = found
        self._name = name
        self._partition = f"replay-{name}"
        self._next_name = f"{_NEXT}{name}.json"
        self._next = self._key(self._next_name)

    @override
    def prepare(self, lines: Iterable[bytes]) -> None:
        with ManifestFile() as manifest:
            for part in self._write_parts(lines):
                manifest.add(part)
            found = self._set
            file = manifest.finish(
                {
                    "job": found.job,
                    "run": found.run,
                    "generation": found.generation,
                    "token": found.token,
                    "created_at": found.created_at,
                    "revision": found.revision + 1,
                    "replayed": self._name,
                }
            )
            with effect("letters.prepare"):
                patiently(lambda: self._store.put(self._next, file, metadata={SHA256: manifest.sha256}))

    @override
    def apply(self) -> None:
        prepared = read_set(self._store, self._set.name, name=self._next_name)
        with declared(self._store, self._set.name) as now:
            head, etag = now.head, now.etag
        if head.replayed != self._name:
            if prepared is None or prepared.revision != head.revision + 1:
                raise SupersededError(str(changed(self._set.url)))
            self._switch(etag)
        self._forget()
        self._remove(self._unnamed())

    @override
    def discard(self) -> None:
        """Forget what was prepared; what another change has prepared is not touched."""
        self._forget()
        self._remove(self._unnamed(self._partition))

    def _forget(self) -> None:
        with effect("letters.forget"):
            patiently(lambda: self._store.delete([self._next]))

    def _remove(self, unnamed: Iterator[str]) -> None:
        for keys in some_at_once(unnamed):
            with effect("letters.tidy"):
                patiently(partial(self._store.delete, keys))

    def _switch(self, etag: str) -> None:
        digest = hashlib.sha256()
        with SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
            with self._store.read(self._next) as reading:
                while piece := reading.file.read(_PIECE):
                    digest.update(piece)
                    file.write(piece)
            try:
                with effect("letters.switch"):
                    patiently(
                        lambda: self._store.put(
                            self._key(LETTERS),
                            file,  # type: ignore[arg-type]  # it is a BinaryIO but for its class
                            metadata={SHA256: digest.hexdigest()},
                            condition=Condition(etag=etag),
                            visible=True,
                        )
                    )
            except ConflictError as error:
                raise SupersededError(str(changed(self._set.url))) from error

    def _write_parts(self, lines: Iterable[bytes]) -> Iterator[Part]:
        content, records, number = bytearray(), 0, 0
        for line in lines:
            content += line
            records += 1
            if len(content) >= _PART_BYTES:
                number += 1
                yield self._write_part(number, bytes(content), records)
                content, records = bytearray(), 0
        if records:
            yield self._write_part(number + 1, bytes(content), records)

    def _write_part(self, number: int, content: bytes, records: int) -> Part:
        name = f"{STEM}-{self._partition}-{number:05d}-{self._set.generation}.ndjson"
        digest = hashlib.sha256(content).hexdigest()
        with effect("letters.put"):
            patiently(
                lambda: self._store.put(self._key(name), content, metadata={SHA256: digest}, visible=True)
            )
        return Part(key=name, partition=self._partition, records=records, bytes=len(content), sha256=digest)

    def _unnamed(self, partition: str | None = None) -> Iterator[str]:
        """Find objects of this set's generation that ``letters.json`` does not name.

        :param partition: only of this one.
        """
        folder = self._set.name
        named: Counter[str] = Counter()
        try:
            with declared(self._store, folder) as now:
                generation = now.head.generation
                for part in now.parts():
                    named[part.partition] += 1
        except MissingObjectError:
            return
        for key in self._store.keys(f"{folder}{STEM}-"):
            name = _OURS.fullmatch(key, len(folder))
            if (
                name is not None
                and name["generation"] == generation
                and partition in {None, name["partition"]}
                and int(name["number"]) > named[name["partition"]]
            ):
                yield key

    def _key(self, name: str) -> str:
        return f"{self._set.name}{name}"


def prepared_changes(store: ObjectStore, folder: str) -> list[str]:
    """Return the names of the changes that were prepared and not ended."""
    before = f"{folder}{_NEXT}"
    return [
        key.removeprefix(before).removesuffix(".json") for key in store.keys(before) if key.endswith(".json")
    ]


def remove_set(store: ObjectStore, found: LetterSet) -> None:
    """Remove a whole set: what names the letters first, so that no reader finds half of them."""
    with effect("letters.remove"):
        patiently(lambda: store.delete([f"{found.name}{LETTERS}"]))
    nexts = [f"{found.name}{_NEXT}{name}.json" for name in prepared_changes(store, found.name)]
    with effect("letters.forget"):
        patiently(lambda: store.delete(nexts))
    for keys in some_at_once(store.keys(f"{found.name}{STEM}-")):
        ours = [key for key in keys if _OURS.fullmatch(key, len(found.name))]
        with effect("letters.tidy"):
            patiently(partial(store.delete, ours))
    with effect("letters.tidy"):
        patiently(lambda: store.clean(found.name))
