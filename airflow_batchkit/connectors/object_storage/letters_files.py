"""The settled dead letters of a place: one set per run, named by its ``letters.json``, read line by line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from airflow_batchkit.connectors.letters.place import LetterSet, Line, changed, decoded
from airflow_batchkit.connectors.object_storage.locations import segment
from airflow_batchkit.connectors.object_storage.staging import FOLDER
from airflow_batchkit.connectors.object_storage.store import MissingObjectError
from airflow_batchkit.connectors.object_storage.verify.declared import (
    BadManifestError,
    Declared,
    LettersHead,
    read_declared,
)
from airflow_batchkit.connectors.patience import patiently
from airflow_batchkit.engine.exceptions import PermanentError, UsageError

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.manifest import Part
    from airflow_batchkit.connectors.object_storage.store import ObjectStore

LETTERS = "letters.json"
STEM = "letters"


class SetHead(LettersHead, kw_only=True, frozen=True):
    """Head of ``letters.json``.

    :param created_at: when the run's letters were settled, ISO 8601.
    :param revision: how often letters were taken out since then.
    :param replayed: the replay, or the purge, that took out the last ones.
    """

    created_at: str = ""
    revision: int = 0
    replayed: str = ""


def set_folder(job: str, run: str) -> str:
    """Return where the letters of one run lie."""
    return f"{segment(job)}/{segment(run)}/"


def find_sets(store: ObjectStore, *, job: str | None = None, run: str | None = None) -> Iterator[LetterSet]:
    """Find the sets of a place, in the order of their folders.

    :param job: only this job's.
    :param run: only this run's.
    :raises UsageError: the URL leads into a set, not to the place.
    """
    if patiently(lambda: read_set(store, "")) is not None:
        raise UsageError(
            f"{store.location.url} holds the letters of one run: name the place two folders above it, "
            "and the run with --run (run=… in Python)"
        )
    jobs = patiently(lambda: store.folders("")) if job is None else [f"{segment(job)}/"]
    for job_folder in jobs:
        runs = (
            patiently(partial(store.folders, job_folder)) if run is None else [f"{job_folder}{segment(run)}/"]
        )
        for folder in runs:
            found = (
                None
                if f"{FOLDER}/" in {job_folder, folder.removeprefix(job_folder)}
                else patiently(partial(read_set, store, folder))
            )
            if found is not None:
                yield found


def read_set(store: ObjectStore, folder: str, *, name: str = LETTERS) -> LetterSet | None:
    """Look at one set, None where there is none.

    :param name: of its manifest.
    """
    try:
        with declared(store, folder, name=name) as found:
            return _set(store, folder, found.head)
    except MissingObjectError:
        return None


@contextmanager
def declared(store: ObjectStore, folder: str, *, name: str = LETTERS) -> Iterator[Declared[SetHead]]:
    """Read a set's manifest for a ``with`` block.

    :raises MissingObjectError: there is none.
    :raises PermanentError: it is damaged.
    """
    try:
        with patiently(lambda: read_declared(store, f"{folder}{name}", SetHead, stem=STEM)) as found:
            yield found
    except BadManifestError as error:
        raise PermanentError(
            f"{store.location.url}/{folder}{name} {error}; nothing was changed: restore it from a backup"
        ) from error


def read_lines(store: ObjectStore, found: LetterSet, *, part: int = 0, after_line: int = 0) -> Iterator[Line]:
    """Read the letters of a set in their order, strictly after a line.

    :param part: position of the object to begin with.
    :param after_line: number of the last line of it that was read.
    :raises CannotResumeError: the set has changed since it was looked at.
    :raises PermanentError: an object is damaged.
    :raises TransientError: the store does not answer.
    """
    with declared(store, found.name) as now:
        if _set(store, found.name, now.head).state != found.state:
            raise changed(found.url)
        named = 0
        for position, one in enumerate(now.parts()):
            named += one.records
            if position >= part:
                yield from _lines_of(store, found, one, position, after_line if position == part else 0)
        if named != found.records:
            raise PermanentError(
                f"{store.location.url}/{found.name}{LETTERS} says {found.records:,} letters, its objects "
                f"hold {named:,}; nothing was removed: look at it with batchkit verify --dead-letters"
            )


def _lines_of(
    store: ObjectStore, found: LetterSet, part: Part, position: int, after_line: int
) -> Iterator[Line]:
    number = 0
    with store.stream(f"{found.name}{part.key}") as file:
        while raw := file.readline():
            number += 1
            if number > after_line:
                where = f"line {number:,} of {found.url}{part.key}"
                yield Line({"part": position, "line": number}, raw, decoded(raw, where=where))
    if number != part.records:
        raise PermanentError(
            f"{store.location.url}/{found.name}{part.key} has {number:,} lines, {part.records:,} were "
            "written; nothing was removed: restore it from a backup"
        )


def _set(store: ObjectStore, folder: str, head: SetHead) -> LetterSet:
    return LetterSet(
        name=folder,
        url=f"{store.location.url}/{folder}",
        job=head.job,
        run=head.run,
        generation=head.generation,
        token=head.token,
        records=head.total.records,
        created_at=head.created_at,
        revision=head.revision,
        replayed=head.replayed,
        complete=head.complete,
    )
