"""The settled dead letters of a place: one set per run, named by its ``letters.json``, read line by line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from airflow_batchkit.connectors.object_storage.locations import segment
from airflow_batchkit.connectors.object_storage.patience import patiently
from airflow_batchkit.connectors.object_storage.staging import FOLDER
from airflow_batchkit.connectors.object_storage.store import MissingObjectError
from airflow_batchkit.connectors.object_storage.verify.declared import (
    BadManifestError,
    Declared,
    LettersHead,
    read_declared,
)
from airflow_batchkit.engine.dead_letters import DeadLetter
from airflow_batchkit.engine.exceptions import CannotResumeError, PermanentError, UsageError

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.manifest import Part
    from airflow_batchkit.connectors.object_storage.store import ObjectStore

LETTERS = "letters.json"
STEM = "letters"

_decode = msgspec.json.Decoder(DeadLetter).decode


class SetHead(LettersHead, kw_only=True, frozen=True):
    """Head of ``letters.json``.

    :param created_at: when the run's letters were settled, ISO 8601.
    :param revision: how often letters were taken out since then.
    :param replayed: the replay, or the purge, that took out the last ones.
    """

    created_at: str = ""
    revision: int = 0
    replayed: str = ""


class Revision(msgspec.Struct, frozen=True):
    """Which state of a set: it changes whenever its letters do."""

    generation: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterSet:
    """The settled letters of one run.

    :param folder: where they lie, with a slash at its end.
    :param head: what ``letters.json`` says of them.
    """

    folder: str
    head: SetHead

    @property
    def revision(self) -> Revision:
        """Which state of the set it is."""
        return Revision(self.head.generation, self.head.revision)

    @property
    def records(self) -> int:
        """How many letters there are."""
        return self.head.total.records


@dataclass(frozen=True, slots=True)
class Line:
    """One letter, and where it stands.

    :param part: position of its object in ``letters.json``, from 0.
    :param number: of the line, from 1.
    :param raw: its bytes, with the line feed.
    :param letter: what they say.
    """

    part: int
    number: int
    raw: bytes
    letter: DeadLetter


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
            return LetterSet(folder=folder, head=found.head)
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
    with declared(store, found.folder) as now:
        if Revision(now.head.generation, now.head.revision) != found.revision:
            raise changed(store, found.folder)
        named = 0
        for position, one in enumerate(now.parts()):
            named += one.records
            if position >= part:
                yield from _lines_of(store, found, one, position, after_line if position == part else 0)
        if named != found.records:
            raise PermanentError(
                f"{store.location.url}/{found.folder}{LETTERS} says {found.records:,} letters, its objects "
                f"hold {named:,}; nothing was removed: look at it with batchkit verify --dead-letters"
            )


def changed(store: ObjectStore, folder: str) -> CannotResumeError:
    """Make the error for a set that is not what it was when the replay began."""
    return CannotResumeError(
        f"the dead letters at {store.location.url}/{folder} have changed since this replay began (another "
        "replay, a purge, or the run was done again): restart the replay"
    )


def short_hash(*texts: object) -> str:
    """Return 8 hex digits that stand for some texts."""
    return hashlib.sha256("\n".join(map(str, texts)).encode()).hexdigest()[:8]


def _lines_of(
    store: ObjectStore, found: LetterSet, part: Part, position: int, after_line: int
) -> Iterator[Line]:
    number = 0
    with store.stream(f"{found.folder}{part.key}") as file:
        while raw := file.readline():
            number += 1
            if number > after_line:
                yield Line(position, number, raw, _letter(store, found, part, number, raw))
    if number != part.records:
        raise PermanentError(
            f"{store.location.url}/{found.folder}{part.key} has {number:,} lines, {part.records:,} were "
            "written; nothing was removed: restore it from a backup"
        )


def _letter(store: ObjectStore, found: LetterSet, part: Part, number: int, raw: bytes) -> DeadLetter:
    try:
        return _decode(raw)
    except msgspec.DecodeError as error:
        # Not the decoder's text: it may quote the record.
        raise PermanentError(
            f"line {number:,} of {store.location.url}/{found.folder}{part.key} is no dead letter; "
            "restore the object from a backup"
        ) from error
