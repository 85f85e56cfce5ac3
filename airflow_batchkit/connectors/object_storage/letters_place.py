"""The settled letters of a bucket or a folder, as lists, replays and purges see them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
from typing_extensions import override

from airflow_batchkit.connectors.letters.place import (
    Change,
    FailedAgain,
    Hold,
    LetterSet,
    Line,
    OpenLetters,
    as_replay,
)
from airflow_batchkit.connectors.object_storage.letters_files import (
    STEM,
    find_sets,
    read_lines,
    read_set,
    set_folder,
)
from airflow_batchkit.connectors.object_storage.letters_rewrite import (
    LetterRewrite,
    prepared_changes,
    remove_set,
)
from airflow_batchkit.connectors.object_storage.locations import segment
from airflow_batchkit.connectors.object_storage.ownership import Ownership
from airflow_batchkit.connectors.object_storage.publish import require_whole_chain
from airflow_batchkit.connectors.object_storage.staging import Staging
from airflow_batchkit.connectors.patience import patiently

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_batchkit.connectors.object_storage.store import ObjectStore
    from airflow_batchkit.engine.checkpoint import Frontier
    from airflow_batchkit.engine.dead_letters import DeadLetter
    from airflow_batchkit.engine.sink import BatchKey, Leg

EXTENSION = ".ndjson"
_encode_lines = msgspec.json.Encoder().encode_lines


class ObjectLetters(OpenLetters):
    """Letters in objects.

    :param store: where they lie; closed with this.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @property
    @override
    def url(self) -> str:
        return self._store.location.url

    @override
    def check(self) -> None:
        self._store.check()

    @override
    def sets(self, *, job: str | None = None, run: str | None = None) -> Iterator[LetterSet]:
        return find_sets(self._store, job=job, run=run)

    @override
    def find(self, name: str) -> LetterSet | None:
        return patiently(lambda: read_set(self._store, name))

    @override
    def name_of(self, job: str, run: str) -> str:
        return set_folder(job, run)

    @override
    def lines(self, found: LetterSet, after: Mapping[str, Any] | None = None) -> Iterator[Line]:
        if after is None:
            return read_lines(self._store, found)
        return read_lines(self._store, found, part=after["part"], after_line=after["line"])

    @override
    def hold(self, found: LetterSet, leg: Leg) -> Hold:
        return Ownership(self._store, leg, root=f"{segment(found.job)}/")

    @override
    def change(self, found: LetterSet, *, name: str) -> Change:
        return LetterRewrite(self._store, found, name=name)

    @override
    def prepared(self, found: LetterSet) -> list[str]:
        return prepared_changes(self._store, found.name)

    @override
    def failed_again(self, leg: Leg) -> FailedAgain:
        return _StagedAgain(self._store, as_replay(leg))

    @override
    def remove(self, found: LetterSet) -> None:
        remove_set(self._store, found)

    @override
    def close(self) -> None:
        self._store.close()


def put_letters(staging: Staging, key: BatchKey, letters: Sequence[DeadLetter]) -> None:
    """Stage one batch's letters, a line each."""
    content = _encode_lines(letters)
    staging.put(key, content, records=len(letters), sha256=hashlib.sha256(content).hexdigest())


class _StagedAgain(FailedAgain):
    """Objects under the replay's own staging."""

    def __init__(self, store: ObjectStore, leg: Leg) -> None:
        self._store = store
        self._staging = Staging(store, leg, root="", stem=STEM, extension=EXTENSION, component="dead_letters")

    @override
    def start(self) -> None:
        self._staging.start(other_runs=False)

    @override
    def put(self, key: BatchKey, letters: Sequence[DeadLetter]) -> None:
        put_letters(self._staging, key, letters)

    @override
    def lines(self, frontier: Frontier) -> Iterator[bytes]:
        links, complete = self._staging.chain(frontier)
        require_whole_chain(self._store, complete=complete)
        for part in self._staging.counting(links):
            with self._store.stream(part.key) as file:
                while line := file.readline():
                    yield line

    @override
    def remove(self) -> None:
        self._staging.remove_all()
