"""Letters for the tests, and rows that keep them in memory under the rules of a table or an index."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from typing_extensions import override

from airflow_batchkit.connectors.letters.rows import LetterRow, LetterRows
from airflow_batchkit.engine.dead_letters import DeadLetter, envelope
from airflow_batchkit.engine.kept_values import KeptValue
from airflow_batchkit.engine.sink import BatchKey
from airflow_batchkit.engine.types import Record, Rejection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_batchkit.engine.sink import Leg


class MemoryRows(LetterRows):
    """Remembers rows by set, part and number, and notes with their versions; ``closed`` once closed."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], LetterRow] = {}
        self.kept: dict[str, KeptValue] = {}
        self.closed = False
        self._versions = itertools.count(1)

    @property
    @override
    def url(self) -> str:
        return "memory://letters"

    @override
    def check(self) -> None:
        """Do nothing: it can always be read."""

    @override
    def create(self) -> None:
        """Do nothing: it is always there."""

    @override
    def add(self, set_name: str, rows: Iterable[LetterRow]) -> int:
        given = list(rows)
        for row in given:
            assert self.rows.setdefault((set_name, row.part, row.number), row) == row
        return len(given)

    @override
    def read(self, set_name: str, part: str, after: str = "") -> Iterator[LetterRow]:
        for key in sorted(self.rows):
            if key[:2] == (set_name, part) and key[2] > after:
                yield self.rows[key]

    @override
    def count(self, set_name: str, part: str) -> int:
        return len(list(self.read(set_name, part)))

    @override
    def parts(self, set_name: str) -> list[str]:
        return sorted({part for name, part, _ in self.rows if name == set_name})

    @override
    def remove(self, set_name: str, part: str) -> None:
        self.rows = {key: row for key, row in self.rows.items() if key[:2] != (set_name, part)}

    @override
    def note(self, name: str) -> KeptValue | None:
        return self.kept.get(name)

    @override
    def write_note(self, name: str, content: bytes, *, version: str | None) -> str | None:
        found = self.kept.get(name)
        if version != (None if found is None else found.version):
            return None
        new = str(next(self._versions))
        self.kept[name] = KeptValue(content=content, version=new)
        return new

    @override
    def remove_note(self, name: str) -> None:
        self.kept.pop(name, None)

    @override
    def notes(self, before: str) -> list[str]:
        return sorted(name for name in self.kept if name.startswith(before))

    @override
    def close(self) -> None:
        self.closed = True


def letters_of(
    leg: Leg, number: int, *bodies: bytes, at: float | None = None, error_type: str = "E"
) -> list[DeadLetter]:
    """Make the letters of a batch.

    :param at: when they were given up. Default: now.
    """
    key = BatchKey(partition=0, number=number)
    rejections = (
        Rejection(
            record=Record(f"{number}.{position}", body),
            stage="sink",
            error_class="record",
            error_type=error_type,
            message="m",
        )
        for position, body in enumerate(bodies)
    )
    return [envelope(rejection, leg=leg, key=key, at=at) for rejection in rejections]
