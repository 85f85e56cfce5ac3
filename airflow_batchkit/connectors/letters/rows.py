"""Dead letters as rows of a table, or documents of an index: what such a system has to do for them.

A row belongs to a *part* of a set. Letters of a run that goes on are staged in a part named by their leg's
token; what is settled is a part with a dot in its name, and is seen once the set's head, a note, names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from airflow_batchkit.engine.dead_letters import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow_batchkit.engine.kept_values import KeptValue

PAGE_BYTES = 3 * 1024 * 1024
_FIRST_PAGE, _LARGEST_PAGE = 10, 1_000
_RECORD = b',"record":'
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterRow:
    """One letter, cut in two so that nobody has to understand its record.

    :param part: of the set.
    :param number: its place in the part; sorts as text.
    :param letter: what its line says of it but for the record, as JSON.
    :param record: the record's exact bytes.
    """

    part: str
    number: str
    letter: bytes
    record: bytes

    @classmethod
    def of(cls, letter: DeadLetter, *, part: str, number: str) -> LetterRow:
        """Cut a letter in two."""
        line, record = _encode(letter), bytes(letter.record)
        head = line[: -len(_RECORD) - len(record) - 1] + b"}"
        return cls(part=part, number=number, letter=head, record=record)

    @property
    def line(self) -> bytes:
        """The letter as its line, whole again."""
        return b"%b%b%b}\n" % (self.letter[:-1], _RECORD, self.record)

    @property
    def settled(self) -> bool:
        """Whether it is a copy for readers, or belongs to a run that goes on."""
        return is_settled(self.part)


class LetterRows(Protocol):
    """One table, or index. Every call may raise ``TransientError``, and may be repeated."""

    @property
    def url(self) -> str:
        """Where it is, as ``batchkit dead-letters`` takes it; no credentials."""
        ...

    def check(self) -> None:
        """Look whether it can be read; where there is none it can still be made.

        :raises UsageError: something else bears its name, or the credentials do not suffice.
        """
        ...

    def create(self) -> None:
        """Make it where there is none; several may do so at once."""
        ...

    def add(self, set_name: str, rows: Iterable[LetterRow]) -> int:
        """Add rows, durable on return; those that are there already, equal, stay as they are.

        :returns: how many rows were given.
        """
        ...

    def read(self, set_name: str, part: str, after: str = "") -> Iterator[LetterRow]:
        """Read a part in the order of its numbers, with bounded memory; all that was added before is seen.

        :param after: number of the last row that was read.
        """
        ...

    def count(self, set_name: str, part: str) -> int:
        """Count the rows of a part."""
        ...

    def parts(self, set_name: str) -> list[str]:
        """Name the parts of a set that have rows."""
        ...

    def remove(self, set_name: str, part: str) -> None:
        """Remove the rows of a part."""
        ...

    def note(self, name: str) -> KeptValue | None:
        """Return a note, None where there is none."""
        ...

    def write_note(self, name: str, content: bytes, *, version: str | None) -> str | None:
        """Replace a note, whole or not at all, durable on return.

        :param version: what it must still be; None: there must be none yet.
        :returns: the new version; None: somebody else changed it, nothing was written.
        """
        ...

    def remove_note(self, name: str) -> None:
        """Remove a note; nothing happens when there is none."""
        ...

    def notes(self, before: str) -> list[str]:
        """Return the names of the notes that begin so, sorted."""
        ...

    def close(self) -> None:
        """Close sockets, also under a call that hangs. Never raises."""
        ...


def is_settled(part: str) -> bool:
    """Whether a part holds copies for readers, not what a run has staged."""
    return "." in part


def by_bytes(rows: Iterable[LetterRow]) -> Iterator[list[LetterRow]]:
    """Give rows in lists, each about as large as a request should be."""
    some: list[LetterRow] = []
    nbytes = 0
    for row in rows:
        some.append(row)
        nbytes += len(row.letter) + len(row.record)
        if nbytes >= PAGE_BYTES or len(some) >= _LARGEST_PAGE:
            yield some
            some, nbytes = [], 0
    if some:
        yield some


def by_pages(page: Callable[[str, int], Sequence[LetterRow]], after: str) -> Iterator[LetterRow]:
    """Give rows page by page, each about as large as a page should be.

    :param page: returns up to so many rows strictly after a number.
    :param after: where to begin.
    """
    size = _FIRST_PAGE
    while rows := page(after, size):
        yield from rows
        after = rows[-1].number
        nbytes = sum(len(row.letter) + len(row.record) for row in rows) // len(rows) + 1
        size = max(1, min(_LARGEST_PAGE, PAGE_BYTES // nbytes))
