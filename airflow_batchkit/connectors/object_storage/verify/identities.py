"""Which documents an output holds more than once: hashes first, then exactly, those whose hashes are equal.

One id twice is damage, unless the export spans several snapshots: then a document that changed meanwhile may
be there in several versions, but no version twice.
"""

from __future__ import annotations

import shutil
import threading
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import gettempdir
from typing import TYPE_CHECKING

from typing_extensions import override

from airflow_batchkit.connectors.object_storage.verify.lines import Line
from airflow_batchkit.connectors.object_storage.verify.objects import Visitor
from airflow_batchkit.connectors.object_storage.verify.repeats import BYTES_PER_HASH, Repeats
from airflow_batchkit.engine.exceptions import UsageError

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.manifest import Part

# Of more hashes that come twice only the number is known, not the documents: memory stays bounded.
MAX_SUSPECTS = 5_000
_KEYS_TOLD = 3


class Identities:
    """The identities of all lines, as hashes on disk.

    :param snapshots: how many the export spans.
    :param records: how many there will be, for a look at the room on the disk.
    :raises UsageError: there is too little.
    """

    def __init__(self, *, snapshots: int, records: int) -> None:
        self._versioned = snapshots > 1
        _check_room(BYTES_PER_HASH * records * (2 if self._versioned else 1))
        self._lines = Repeats()
        self._documents = Repeats() if self._versioned else None

    def visitor(self, _part: Part) -> Visitor[Line]:
        """Make what collects the hashes of one object."""
        return _Hashes(self)

    def hashes(self, lines: Sequence[Line]) -> list[int]:
        """Return what tells lines apart, one number for each.

        Python's own hash: 64 bits, seeded anew in each process, a tenth of the cost of any other. Among 300
        million documents two are equal by chance once in 400 outputs; so it is never the last word.
        """
        if self._versioned:
            return [hash((line.id, line.index, line.routing, line.version)) for line in lines]
        return self._document_hashes(lines)

    def documents(self, lines: Sequence[Line]) -> list[int]:
        """Return what tells documents apart, whatever their version; nothing where there is only one."""
        return self._document_hashes(lines) if self._versioned else []

    def exactly(self, line: Line) -> tuple[str, int | None]:
        """Return what the hash of a line stands for: the document, and its version where that counts."""
        return line.identity, line.version if self._versioned else None

    def add(self, lines: array[int], documents: array[int]) -> None:
        """Take the hashes of one object."""
        self._lines.add(lines)
        if self._documents is not None:
            self._documents.add(documents)

    def repeated(self) -> Repeated:
        """Look through all of them; the first time that anything is compared."""
        suspects: dict[int, int] = {}
        lines = 0
        for value, times in self._lines.repeated():
            lines += times - 1
            if len(suspects) < MAX_SUSPECTS:
                suspects[value] = times
        documents = lines
        if self._documents is not None:
            documents = sum(times - 1 for _, times in self._documents.repeated())
        return Repeated(lines=lines, changed=max(0, documents - lines), suspects=suspects)

    def _document_hashes(self, lines: Sequence[Line]) -> list[int]:
        return [hash((line.id, line.index, line.routing)) for line in lines]

    def close(self) -> None:
        """Give the disk back."""
        self._lines.close()
        if self._documents is not None:
            self._documents.close()


@dataclass(slots=True)
class Repeated:
    """What came more than once, by its hash.

    :param lines: how many lines too many.
    :param changed: how many older versions of documents that changed while they were exported.
    :param suspects: hashes that came more than once, and how often; not all where there are very many.
    """

    lines: int
    changed: int
    suspects: Mapping[int, int]


@dataclass(slots=True)
class _Place:
    times: int = 0
    keys: list[str] = field(default_factory=list)


class Suspects:
    """Reads the lines a second time, for those whose hashes came more than once.

    :param identities: makes the hashes.
    :param repeated: which to look for.
    """

    def __init__(self, identities: Identities, repeated: Repeated) -> None:
        self.identities = identities
        self.repeated = repeated
        self._lock = threading.Lock()
        self._places: dict[tuple[str, int | None], _Place] = {}

    def visitor(self, part: Part) -> Visitor[Line]:
        """Make what looks through one object."""
        return _Looking(self, part.key)

    def add(self, key: str, seen: Counter[tuple[str, int | None]]) -> None:
        """Take what one object holds of them."""
        with self._lock:
            for document, times in seen.items():
                place = self._places.setdefault(document, _Place())
                place.times += times
                if key not in place.keys and len(place.keys) < _KEYS_TOLD:
                    place.keys.append(key)

    def confirmed(self) -> tuple[int, list[str]]:
        """Return how many lines are too many, and a text for each document that was looked for and is."""
        twice = [(document, place) for document, place in self._places.items() if place.times > 1]
        by_hash = sum(times - 1 for times in self.repeated.suspects.values())
        exactly = sum(place.times - 1 for _, place in twice)
        texts = [
            f"{document}{'' if version is None else f' in version {version}'} is there "
            f"{place.times:,} times, in {' and '.join(place.keys)}"
            for (document, version), place in twice
        ]
        return self.repeated.lines - by_hash + exactly, texts


class _Hashes(Visitor[Line]):
    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._lines = array("q")
        self._documents = array("q")

    @override
    def see(self, lines: Sequence[Line]) -> None:
        self._lines.extend(self._identities.hashes(lines))
        self._documents.extend(self._identities.documents(lines))

    @override
    def done(self) -> None:
        self._identities.add(self._lines, self._documents)


class _Looking(Visitor[Line]):
    def __init__(self, suspects: Suspects, key: str) -> None:
        self._suspects = suspects
        self._key = key
        self._seen: Counter[tuple[str, int | None]] = Counter()

    @override
    def see(self, lines: Sequence[Line]) -> None:
        wanted = self._suspects.repeated.suspects
        for value, line in zip(self._suspects.identities.hashes(lines), lines, strict=True):
            if value in wanted:
                self._seen[self._suspects.identities.exactly(line)] += 1

    @override
    def done(self) -> None:
        self._suspects.add(self._key, self._seen)


def _check_room(needed: int) -> None:
    free = shutil.disk_usage(gettempdir()).free
    if needed > free:
        raise UsageError(
            f"looking for ids that come twice takes {needed:,} bytes in {gettempdir()}, which has {free:,} "
            "free: set TMPDIR to a larger folder, or leave the ids out"
        )
