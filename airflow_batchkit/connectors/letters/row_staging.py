"""Where letters lie in rows while their run goes on: a part per leg, and the chain that tells which count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from typing_extensions import override

from airflow_batchkit.connectors.letters.place import FailedAgain, decoded
from airflow_batchkit.connectors.letters.rows import LetterRow, LetterRows
from airflow_batchkit.connectors.object_storage.locations import segment
from airflow_batchkit.engine.checkpoint import Frontier
from airflow_batchkit.engine.exceptions import CannotResumeError, TransientError
from airflow_batchkit.engine.failpoints import effect
from airflow_batchkit.engine.sink import Inherited

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from airflow_batchkit.engine.dead_letters import DeadLetter
    from airflow_batchkit.engine.sink import BatchKey, Leg

PARTIAL = "_partial/"


class _Link(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a leg notes of the one before it."""

    previous: str = ""
    frontier: Frontier = Frontier()


def set_of(job: str, run: str, *, partial: bool = False) -> str:
    """Name the set of one run.

    :param partial: of a run over a part, which may have the name of a whole one.
    """
    return f"{PARTIAL if partial else ''}{segment(job)}/{segment(run)}"


class RowStaging(FailedAgain):
    """The staged letters of one run, seen from one of its legs.

    :param rows: where they lie.
    :param leg: the leg.
    """

    def __init__(self, rows: LetterRows, leg: Leg) -> None:
        self.set_name = set_of(leg.job, leg.run, partial=leg.mode == "partial")
        self._rows = rows
        self._leg = leg
        self._older: set[str] = set()

    @override
    def start(self) -> None:
        self._rows.create()
        self._older = set(self._tokens()) - {self._leg.token}
        before = self._leg.inherited
        link = _Link() if before is None else _Link(before.token, before.frontier)
        with effect("dead_letters.start"):
            overwrite(self._rows, self._note(self._leg.token), msgspec.json.encode(link))

    @override
    def put(self, key: BatchKey, letters: Sequence[DeadLetter]) -> None:
        rows = (
            LetterRow.of(
                letter, part=self._leg.token, number=f"{key.partition:05d}-{key.number:07d}-{position:07d}"
            )
            for position, letter in enumerate(letters)
        )
        with effect("dead_letters.put"):
            self._rows.add(self.set_name, rows)

    def chain(self, frontier: Frontier) -> tuple[list[Inherited], bool]:
        """Follow the legs back to the first.

        :param frontier: what counts of this leg's own batches.
        :returns: the legs, newest first, and whether the first was reached (False: a link is gone).
        """
        links = [Inherited(token=self._leg.token, frontier=frontier)]
        before = self._leg.inherited
        while before is not None:
            links.append(before)
            note = self._rows.note(self._note(before.token))
            if note is None:
                return links, False
            link = msgspec.json.decode(note.content, type=_Link)
            before = Inherited(token=link.previous, frontier=link.frontier) if link.previous else None
        return links, True

    def counting(self, links: Sequence[Inherited]) -> Iterator[LetterRow]:
        """Give the rows that count, leg by leg, and in each in the order of its batches.

        :param links: the chain, newest first.
        """
        for link in reversed(links):
            for row in self._rows.read(self.set_name, link.token):
                partition, number, _ = row.number.split("-")
                if link.frontier.covers(int(partition), int(number)):
                    yield row

    def whole(self, frontier: Frontier) -> Iterator[LetterRow]:
        """Give all the rows that count.

        :raises CannotResumeError: somebody removed what an earlier leg had kept.
        """
        links, whole = self.chain(frontier)
        if not whole:
            raise CannotResumeError(
                f"what earlier legs of this run had kept at {self._rows.url} is gone (somebody removed it): "
                "restart the run"
            )
        yield from self.counting(links)

    @override
    def lines(self, frontier: Frontier) -> Iterator[bytes]:
        for row in self.whole(frontier):
            yield row.line

    @override
    def remove(self) -> None:
        self.remove_all(keep=())

    def remove_all(self, *, keep: Collection[str]) -> None:
        """Remove all that is not newer than this leg, the links of the chain last.

        :param keep: parts that stay.
        """
        own = {*self._older, self._leg.token}
        newer = set(self._tokens()) - own
        for part in self._rows.parts(self.set_name):
            if part not in keep and part.partition(".")[0] not in newer:
                with effect("dead_letters.delete"):
                    self._rows.remove(self.set_name, part)
        for token in sorted(own):
            with effect("dead_letters.clean"):
                self._rows.remove_note(self._note(token))

    def _tokens(self) -> list[str]:
        before = self._note("")
        return [name.removeprefix(before) for name in self._rows.notes(before)]

    def _note(self, token: str) -> str:
        return f"leg/{self.set_name}/{token}"


def overwrite(rows: LetterRows, name: str, content: bytes) -> str:
    """Write a note that nobody else writes, whatever it was.

    :returns: its version.
    :raises TransientError: somebody else writes it.
    """
    found = rows.note(name)
    version = rows.write_note(name, content, version=None if found is None else found.version)
    if version is None:
        raise TransientError(f"{rows.url}: {name} was changed meanwhile; may work when tried again")
    return version


def copied(
    rows: LetterRows, set_name: str, lines: Iterator[bytes], *, part: str, where: Callable[[int], str]
) -> int:
    """Copy letters into a part, numbered in their order.

    :param where: names the letter of a number, for messages.
    :returns: how many.
    :raises TransientError: they are not all there.
    """
    given = rows.add(
        set_name,
        (
            LetterRow.of(decoded(line, where=where(number)), part=part, number=f"{number:012d}")
            for number, line in enumerate(lines, start=1)
        ),
    )
    found = rows.count(set_name, part)
    if found != given:
        raise TransientError(
            f"{rows.url}: {given:,} letters were written for {set_name}, {found:,} are there; may work when "
            "tried again"
        )
    return given
