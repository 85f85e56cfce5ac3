"""The settled letters in rows, as lists, replays and purges see them: a set's head names one part."""

from __future__ import annotations

import secrets
import socket
import time
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
    changed,
    decoded,
)
from airflow_batchkit.connectors.letters.row_staging import PARTIAL, RowStaging, copied, overwrite, set_of
from airflow_batchkit.connectors.letters.rows import is_settled
from airflow_batchkit.connectors.object_storage.locations import segment
from airflow_batchkit.engine import owner
from airflow_batchkit.engine.exceptions import PermanentError, SupersededError, TransientError
from airflow_batchkit.engine.failpoints import effect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_batchkit.connectors.letters.rows import LetterRows
    from airflow_batchkit.engine.sink import Leg

_HEADS = "set/"
_CLAIM_TRIES = 5


class Head(msgspec.Struct, kw_only=True, frozen=True):
    """What readers see of a set: one note, replaced in one conditional write.

    :param part: which rows are its letters.

    The others are those of :class:`LetterSet`.
    """

    job: str
    run: str
    generation: str
    token: str
    part: str
    records: int
    created_at: str
    revision: int = 0
    replayed: str = ""
    complete: bool = True


class _Prepared(msgspec.Struct, frozen=True):
    part: str
    records: int
    revision: int


def read_head(rows: LetterRows, set_name: str) -> tuple[Head | None, str | None]:
    """Look at a set's head, and at the version of its note."""
    note = rows.note(f"{_HEADS}{set_name}")
    return (None, None) if note is None else (msgspec.json.decode(note.content, type=Head), note.version)


def switch(rows: LetterRows, set_name: str, head: Head, *, version: str | None, name: str) -> None:
    """Make a part the set, in one write.

    :param version: of the head that it replaces; None: there must be none.
    :param name: of the effect, for the kill-anywhere tests.
    :raises TransientError: somebody else changed the set: look again.
    """
    with effect(name):
        written = rows.write_note(f"{_HEADS}{set_name}", msgspec.json.encode(head), version=version)
    if written is None:
        raise TransientError(f"the dead letters at {rows.url} ({set_name}) were changed meanwhile")


class RowLetters(OpenLetters):
    """Settled letters in rows.

    :param rows: where they lie; closed with this.
    """

    def __init__(self, rows: LetterRows) -> None:
        self._rows = rows

    @property
    @override
    def url(self) -> str:
        return self._rows.url

    @override
    def check(self) -> None:
        self._rows.check()

    @override
    def sets(self, *, job: str | None = None, run: str | None = None) -> Iterator[LetterSet]:
        before = _HEADS if job is None else f"{_HEADS}{segment(job)}/"
        for name in self._rows.notes(before):
            set_name = name.removeprefix(_HEADS)
            found = None if set_name.startswith(PARTIAL) else self.find(set_name)
            if found is not None and run in {None, found.run}:
                yield found

    @override
    def find(self, name: str) -> LetterSet | None:
        head, _ = read_head(self._rows, name)
        if head is None:
            return None
        shown = {field: value for field, value in msgspec.structs.asdict(head).items() if field != "part"}
        return LetterSet(name=name, url=f"{self.url} ({name})", **shown)

    @override
    def name_of(self, job: str, run: str) -> str:
        return set_of(job, run)

    @override
    def lines(self, found: LetterSet, after: Mapping[str, Any] | None = None) -> Iterator[Line]:
        head, _ = read_head(self._rows, found.name)
        if head is None or (head.generation, head.revision) != (found.generation, found.revision):
            raise changed(found.url)
        number = "" if after is None else str(after["number"])
        last = int(number or "0")
        for row in self._rows.read(found.name, head.part, number):
            last += 1
            where = f"letter {row.number} of {found.url}"
            yield Line({"number": row.number}, row.line, decoded(row.line, where=where))
        if last != head.records:
            raise PermanentError(
                f"{found.url} should have {head.records:,} letters, {last:,} are there; nothing was removed: "
                "restore them from a backup"
            )

    @override
    def hold(self, found: LetterSet, leg: Leg) -> Hold:
        return RowHold(self._rows, leg)

    @override
    def change(self, found: LetterSet, *, name: str) -> Change:
        return RowChange(self._rows, found, name=name)

    @override
    def prepared(self, found: LetterSet) -> list[str]:
        before = f"change/{found.name}/"
        return [name.removeprefix(before) for name in self._rows.notes(before)]

    @override
    def failed_again(self, leg: Leg) -> FailedAgain:
        return RowStaging(self._rows, as_replay(leg))

    @override
    def remove(self, found: LetterSet) -> None:
        with effect("letters.remove"):
            self._rows.remove_note(f"{_HEADS}{found.name}")
        for name in self.prepared(found):
            with effect("letters.forget"):
                self._rows.remove_note(f"change/{found.name}/{name}")
        tidy(self._rows, found.name)

    @override
    def close(self) -> None:
        self._rows.close()


class RowChange(Change):
    """One change of one set: what stays is a new part, which the head names once it is applied.

    :param rows: where the letters lie.
    :param found: the set as it is before the change.
    :param name: of the change.
    """

    def __init__(self, rows: LetterRows, found: LetterSet, *, name: str) -> None:
        self._rows = rows
        self._set = found
        self._name = name
        self._note = f"change/{found.name}/{name}"

    @override
    def prepare(self, lines: Iterable[bytes]) -> None:
        # Of this try alone: an older leg of the same replay may still be writing its own.
        part = f"{self._name}.{secrets.token_hex(8)}"
        with effect("letters.put"):
            records = copied(
                self._rows,
                self._set.name,
                iter(lines),
                part=part,
                where=lambda number: f"letter {number:,} for {self._set.url}",
            )
        prepared = _Prepared(part, records, self._set.revision + 1)
        with effect("letters.prepare"):
            overwrite(self._rows, self._note, msgspec.json.encode(prepared))

    @override
    def apply(self) -> None:
        head, version = read_head(self._rows, self._set.name)
        if head is None or head.replayed != self._name:
            self._switch(head, version)
        self._forget()

    @override
    def discard(self) -> None:
        self._forget()

    def _switch(self, head: Head | None, version: str | None) -> None:
        note = self._rows.note(self._note)
        prepared = None if note is None else msgspec.json.decode(note.content, type=_Prepared)
        if head is None or prepared is None or prepared.revision != head.revision + 1:
            raise SupersededError(str(changed(self._set.url)))
        after = msgspec.structs.replace(
            head,
            part=prepared.part,
            records=prepared.records,
            revision=prepared.revision,
            replayed=self._name,
        )
        switch(self._rows, self._set.name, after, version=version, name="letters.switch")

    def _forget(self) -> None:
        with effect("letters.forget"):
            self._rows.remove_note(self._note)
        tidy(self._rows, self._set.name)


class RowHold(Hold):
    """A note with the owner's record, under the engine's rules for targets.

    :param rows: where it lies.
    :param leg: who wants it.
    """

    def __init__(self, rows: LetterRows, leg: Leg) -> None:
        self._rows = rows
        self._leg = leg
        self._name = f"owner/{segment(leg.job)}"
        self._record: owner.OwnerRecord | None = None
        self._version: str | None = None

    @override
    def claim(self) -> None:
        self._rows.create()
        for _ in range(_CLAIM_TRIES):
            note = self._rows.note(self._name)
            found = None if note is None else msgspec.json.decode(note.content, type=owner.OwnerRecord)
            now = time.time()
            place = f"{self._rows.url} ({self._name})"
            owner.refuse(found, self._leg, now=now, target=self._rows.url, record_place=place)
            record = owner.claimed(found, self._leg, now=now, host=socket.gethostname())
            if self._write(record, None if note is None else note.version, "claim"):
                return
        raise TransientError(f"{self._rows.url}: several legs want it at once; may work when tried again")

    @override
    def renew_if_due(self, *, for_seconds: float = 0.0) -> None:
        record, now = self._held(), time.time()
        if owner.renewal_due(record, now=now, for_seconds=for_seconds):
            self._replace(owner.renewed(record, now=now, for_seconds=for_seconds), "renew")

    @override
    def confirm(self) -> None:
        self._replace(owner.renewed(self._held(), now=time.time()), "confirm")

    @override
    def release(self) -> None:
        if self._record is not None:
            self._replace(owner.released(self._record, tidy=True), "release")
            self._record = None

    def _held(self) -> owner.OwnerRecord:
        if self._record is None:
            raise SupersededError(f"{self._rows.url} is not held by this leg ({self._leg.token})")
        return self._record

    def _replace(self, record: owner.OwnerRecord, verb: str) -> None:
        if not self._write(record, self._version, verb):
            self._record = None
            raise SupersededError(
                f"the letters at {self._rows.url} are held by another leg now; this leg ({self._leg.token}) "
                "stops here"
            )

    def _write(self, record: owner.OwnerRecord, version: str | None, verb: str) -> bool:
        with effect(f"letters.{verb}"):
            written = self._rows.write_note(self._name, msgspec.json.encode(record), version=version)
        if written is not None:
            self._record, self._version = record, written
        return written is not None


def tidy(rows: LetterRows, set_name: str) -> None:
    """Remove the settled parts that neither the set's head names nor a change that is prepared."""
    head, _ = read_head(rows, set_name)
    keep = set() if head is None else {head.part}
    for name in rows.notes(f"change/{set_name}/"):
        note = rows.note(name)
        if note is not None:
            keep.add(msgspec.json.decode(note.content, type=_Prepared).part)
    for part in rows.parts(set_name):
        if is_settled(part) and part not in keep:
            with effect("letters.tidy"):
                rows.remove(set_name, part)
