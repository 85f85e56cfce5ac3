"""The dead letters of an output: as many as its manifest says, each readable, none changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_batchkit.connectors.letters.place import letter_of
from airflow_batchkit.connectors.object_storage.letters_files import LETTERS
from airflow_batchkit.connectors.object_storage.locations import check_key
from airflow_batchkit.connectors.object_storage.store import MissingObjectError
from airflow_batchkit.connectors.object_storage.verify.declared import (
    BadManifestError,
    Declared,
    LettersHead,
    OutputHead,
    read_declared,
)
from airflow_batchkit.connectors.object_storage.verify.objects import ObjectReader, ObjectTask
from airflow_batchkit.connectors.patience import in_order, patiently
from airflow_batchkit.engine.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_batchkit.connectors.object_storage.store import ObjectStore
    from airflow_batchkit.connectors.object_storage.verify.verification import Verification

_OBJECTS_AT_ONCE = 4


def verify_letters(
    store: ObjectStore, found: Verification, *, seconds: float, stop_asked: Callable[[], str | None]
) -> None:
    """Look whether the dead letters of an output are there and whole, and note it in its verification.

    :param store: the place that the job was given for its dead letters; the manifest may name nothing else.
    :param found: the output's.
    :param seconds: the longest time for one object.
    :param stop_asked: returns the reason when someone asks to stop, else None.
    :raises UsageError: the manifest says that they are elsewhere.
    """
    head = found.head
    if head is None:
        return
    expected = int(head.dead_letters.get("count") or 0)
    found.letters = 0
    if expected == 0:
        return
    folder = _folder(store, head)
    try:
        declared = patiently(lambda: read_declared(store, f"{folder}{LETTERS}", LettersHead, stem="letters"))
    except MissingObjectError:
        found.problems.add("dead_letters", f"{folder}{LETTERS} is not at {store.location.url}")
        return
    except BadManifestError as error:
        found.problems.add("dead_letters", f"{folder}{LETTERS} {error}")
        return
    with declared:
        found.letters = _read(store, declared, found, folder, seconds=seconds, stop_asked=stop_asked)
    if found.letters != expected:
        found.problems.add(
            "dead_letters", f"{found.letters:,} dead letters are there, the manifest says {expected:,}"
        )


def _folder(store: ObjectStore, head: OutputHead) -> str:
    place, below = str(head.dead_letters.get("place")), f"{store.location.url}/"
    if not place.startswith(below):
        raise UsageError(
            f"--dead-letters {store.location.url} is not where the manifest says that they are: {place!a}"
        )
    check_key(place.removeprefix(below))
    return f"{place.removeprefix(below)}/"


def _read(
    store: ObjectStore,
    declared: Declared[LettersHead],
    found: Verification,
    folder: str,
    *,
    seconds: float,
    stop_asked: Callable[[], str | None],
) -> int:
    reader = ObjectReader(
        store,
        folder=folder,
        compression=None,
        decode=letter_of,
        stop_asked=stop_asked,
    )
    letters = 0
    try:
        tasks = map(ObjectTask, declared.parts(found.problems))
        for read in in_order(reader, tasks, threads=_OBJECTS_AT_ONCE, seconds=seconds):
            letters += read.records
            for _, text in read.problems:
                found.problems.add("dead_letters", f"{folder}{text}")
    except BadManifestError as error:
        found.problems.add("dead_letters", f"{folder}{LETTERS} {error}")
    return letters
