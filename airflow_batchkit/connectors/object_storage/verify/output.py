"""One published output, looked at from its manifest to its last line. Nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from airflow_batchkit.connectors.object_storage.manifest import MANIFEST, Part, read_head
from airflow_batchkit.connectors.object_storage.publish import SUCCESS
from airflow_batchkit.connectors.object_storage.staging import FOLDER, PARTIAL_FOLDER
from airflow_batchkit.connectors.object_storage.store import MissingObjectError
from airflow_batchkit.connectors.object_storage.verify.declared import (
    BadManifestError,
    Declared,
    OutputHead,
    Sums,
    contradictions,
    read_declared,
)
from airflow_batchkit.connectors.object_storage.verify.identities import Identities, Suspects
from airflow_batchkit.connectors.object_storage.verify.lines import Line
from airflow_batchkit.connectors.object_storage.verify.objects import (
    ObjectFound,
    ObjectReader,
    ObjectTask,
    Visitor,
)
from airflow_batchkit.connectors.object_storage.verify.verification import Verification
from airflow_batchkit.connectors.patience import in_order, patiently
from airflow_batchkit.engine.exceptions import TransientError, UsageError

if TYPE_CHECKING:
    import logging

    from airflow_batchkit.connectors.object_storage.store import ObjectStore

OBJECTS_AT_ONCE = 4
_NAMES_TOLD = 5


class Onlooker:
    """Told how a verification goes; every method may be left out."""

    def begin(self, head: OutputHead) -> None:
        """Take note of the manifest: the objects come next."""

    def wanted(self, part: Part) -> tuple[int, ...]:
        """Return the numbers of the lines of an object to be shown to :meth:`seen`, ascending, from 1."""
        del part
        return ()

    def seen(self, found: ObjectFound) -> None:
        """Take note of an object that has been read; they come in the order of the manifest."""


class OutputVerifier:
    """Verifies one output.

    :param store: where it lies.
    :param root: prefix of its keys: empty, or a folder with a slash at its end.
    :param ids: look for ids that come twice; takes 8 bytes per record in the temporary folder.
    :param seconds: the longest time for one object.
    :param stop_asked: returns the reason when someone asks to stop, else None.
    :param onlookers: who is told.
    :param log: where to say what is done.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        root: str = "",
        ids: bool = True,
        seconds: float,
        stop_asked: Callable[[], str | None] = lambda: None,
        onlookers: Sequence[Onlooker] = (),
        log: logging.Logger,
    ) -> None:
        self._store = store
        self._root = root
        self._ids = ids
        self._seconds = seconds
        self._stop_asked = stop_asked
        self._onlookers = onlookers
        self._log = log
        self._found = Verification(location=f"{store.location.url}/{root}".rstrip("/"))

    def run(self) -> Verification:
        """Look at everything.

        :raises UsageError: there is no output, or it cannot be read with these permissions.
        :raises StoppedError: someone asked to stop.
        :raises TransientError: the store does not answer, or the output was replaced meanwhile.
        """
        found = self._found
        started = time.monotonic()
        try:
            declared = patiently(lambda: read_declared(self._store, f"{self._root}{MANIFEST}", OutputHead))
        except MissingObjectError as error:
            raise UsageError(self._no_output()) from error
        except BadManifestError as error:
            found.problems.add("manifest", f"the manifest {error}")
            return found
        with declared:
            self._verify(declared)
            if not found.whole:
                self._check_still_there(declared)
        found.seconds = time.monotonic() - started
        return found

    def _verify(self, declared: Declared[OutputHead]) -> None:
        found, head = self._found, declared.head
        found.head = head
        if head.location != found.location:
            found.warnings.add("moved", f"the output was published at {head.location!a}")
        self._log.info("reads %d objects, %d records", head.total.parts, head.total.records)
        try:
            self._check_manifest(declared)
        except BadManifestError as error:
            found.problems.add("manifest", f"the manifest {error}")
            return
        for onlooker in self._onlookers:
            onlooker.begin(head)
        self._check_objects(declared)
        self._check_success()
        self._check_strays(declared)

    def _check_manifest(self, declared: Declared[OutputHead]) -> None:
        parts = records = nbytes = 0
        for part in declared.parts(self._found.problems):
            parts, records, nbytes = parts + 1, records + part.records, nbytes + part.bytes
        for kind, text in contradictions(declared.head, Sums(parts, records, nbytes)):
            self._found.problems.add(kind, text)
        self._found.nbytes = nbytes

    def _check_objects(self, declared: Declared[OutputHead]) -> None:
        if not self._ids:
            for read in self._read(declared, self._tasks(declared), None):
                self._note(read)
            return
        identities = Identities(snapshots=declared.head.snapshots, records=declared.head.total.records)
        try:
            for read in self._read(declared, self._tasks(declared), identities.visitor):
                self._note(read)
            self._check_identities(declared, identities)
        finally:
            identities.close()

    def _note(self, read: ObjectFound) -> None:
        self._found.objects += 1
        self._found.records += read.records
        for kind, text in read.problems:
            self._found.problems.add(kind, text)
        for onlooker in self._onlookers:
            onlooker.seen(read)

    def _check_identities(self, declared: Declared[OutputHead], identities: Identities) -> None:
        repeated = identities.repeated()
        self._found.ids, self._found.changed = True, repeated.changed
        if not repeated.suspects:
            return
        self._log.info("%d ids seem to come twice: reads the objects again to name them", repeated.lines)
        suspects = Suspects(identities, repeated)
        for _ in self._read(declared, map(ObjectTask, declared.parts()), suspects.visitor):
            pass
        lines, texts = suspects.confirmed()
        for text in texts:
            self._found.problems.add("repeated", text)
        self._found.problems.add_untold("repeated", lines - len(texts))

    def _read(
        self,
        declared: Declared[OutputHead],
        tasks: Iterable[ObjectTask],
        visitor: Callable[[Part], Visitor[Line]] | None,
    ) -> Iterator[ObjectFound]:
        reader = ObjectReader(
            self._store,
            folder=self._root,
            compression=declared.head.compression,
            decode=msgspec.json.Decoder(Line).decode,
            visitor=visitor,
            stop_asked=self._stop_asked,
        )
        return in_order(reader, tasks, threads=OBJECTS_AT_ONCE, seconds=self._seconds)

    def _tasks(self, declared: Declared[OutputHead]) -> Iterator[ObjectTask]:
        for part in declared.parts():
            wanted = sorted(number for onlooker in self._onlookers for number in onlooker.wanted(part))
            yield ObjectTask(part, tuple(wanted))

    def _check_success(self) -> None:
        try:
            patiently(lambda: self._store.head(f"{self._root}{SUCCESS}"))
        except MissingObjectError:
            self._found.problems.add("success", f"{SUCCESS} is not there")

    def _check_strays(self, declared: Declared[OutputHead]) -> None:
        """Count what lies there besides; the names of each kind are not kept, but for the first."""
        ours = {MANIFEST, SUCCESS, f"{FOLDER}/owner.json"}
        strays: dict[str, tuple[str, int]] = {}
        for key in self._store.keys(self._root):
            name = key[len(self._root) :]
            if name in ours or name.startswith(f"{PARTIAL_FOLDER}/") or declared.names.belongs(name):
                continue
            if name.startswith(f"{FOLDER}/"):
                kind = "staged"
            else:
                kind = "older" if declared.names.is_older(name) else "foreign"
            first, count = strays.get(kind, (name, 0))
            strays[kind] = (first, count + 1)
        for kind, (first, count) in strays.items():
            self._found.warnings.add(kind, f"{count:,} {_STRAYS[kind]}, such as {first!a}")

    def _check_still_there(self, declared: Declared[OutputHead]) -> None:
        """Make sure that what is damaged is not simply gone because a newer run has published.

        :raises TransientError: it has.
        """
        try:
            now = read_head(self._store, f"{self._root}{MANIFEST}")
        except UsageError:
            return
        if now is not None and now.head.generation != declared.head.generation:
            raise TransientError(
                f"{self._found.location} was replaced by run {now.head.run} while it was verified"
            )

    def _no_output(self) -> str:
        """Say what lies there instead."""
        folders = self._store.folders(self._root)
        lying = folders or islice(self._store.keys(self._root), _NAMES_TOLD)
        names = [name[len(self._root) :] for name in lying]
        missing = f"there is no {MANIFEST} at {self._found.location}"
        if names == [f"{FOLDER}/"]:
            return f"{missing}, only staged objects: a run is at work there, or failed before it published"
        if not names:
            return f"{missing}: nothing lies there"
        return f"{missing}, but {', '.join(map(ascii, names[:_NAMES_TOLD]))}: name the prefix of one output"


_STRAYS = {
    "staged": f"objects lie below {FOLDER}/",
    "older": "parts of another generation lie there",
    "foreign": "other objects lie there",
}
