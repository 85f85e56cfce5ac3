"""Reads dead letters as what they were: the records, exactly as they were given up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from airflow_batchkit.connectors.letters.filter import LetterFilter
from airflow_batchkit.connectors.letters.place import (
    ExtendableSink,
    LetterSet,
    Line,
    OpenLetters,
    ReplayablePlace,
    Revision,
    changed,
    replayable,
    short_hash,
)
from airflow_batchkit.engine.dead_letters import ReplayedRecord
from airflow_batchkit.engine.exceptions import BatchkitError, TransientError, UsageError
from airflow_batchkit.engine.source import OpenSource
from airflow_batchkit.engine.types import Cursor, Page, Record, Sizing, Total, record_size
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.engine.source import OpenContext

_SET = "set"
_RUNS_NAMED = 5


@dataclass(frozen=True, kw_only=True, repr=False)
class DeadLetterSource(Value):
    """The records of the dead letters of one run, in the letters' order.

    :param place: where they are kept, as the job was given it: ``DeadLetters(…)``,
        ``ElasticsearchDeadLetters(…)`` or ``SqlDeadLetters(…)``.
    :param only: which letters. Default: all that were replayed less than ten times.
    :param job: whose letters, where several jobs share the place.
    :param run: of which run, where the place holds several runs' letters.
    :param output: the sink whose output lacks these records: the letters of the run that it shows are read.
    """

    __templated__: ClassVar[tuple[str, ...]] = ("place", "only", "job", "run", "output")

    place: ReplayablePlace = field(kw_only=False)
    only: LetterFilter = field(default_factory=LetterFilter)
    job: str | None = None
    run: str | None = None
    output: ExtendableSink | None = None

    @override
    def check(self) -> None:
        """Refuse what keeps no letters.

        :raises UsageError: what it is instead, and what to give.
        """
        replayable(self.place, what=f"DeadLetterSource({self.place!r})")

    def open(self, context: OpenContext) -> OpenDeadLetterSource:
        """Connect, and find the run's letters.

        :raises UsageError: no such place, letters of several runs, or of another run than the output's.
        :raises TransientError: the place does not answer.
        """
        place = self.place.open_letters(context)
        try:
            place.check()
            found = self._resumed(place, context) if context.state else self.choose(place, context)
        except BatchkitError:
            place.close()
            raise
        return OpenDeadLetterSource(place, found, only=self.only, log=context.log)

    def choose(self, place: OpenLetters, context: OpenContext) -> LetterSet | None:
        """Return the set of letters that is meant, None where there are no letters.

        :raises UsageError: the letters do not fit the output, are of several runs, or of a run that failed.
        """
        found = self._only_one(place) if self.output is None else self._of_output(place, self.output, context)
        if found is not None and not found.complete:
            raise UsageError(
                f"the letters at {found.url} are of a run that failed: mend what failed and clear its task, "
                "it goes on with them; nothing was replayed"
            )
        return found

    def _only_one(self, place: OpenLetters) -> LetterSet | None:
        found = [one for one in place.sets(job=self.job, run=self.run) if one.records]
        complete = [one for one in found if one.complete]
        if not complete:
            return found[0] if found else None
        if len(complete) > 1:
            named = ", ".join(f"{one.job} run {one.run}" for one in complete[:_RUNS_NAMED])
            raise UsageError(
                f"{place.url} holds the letters of {len(complete):,} runs ({named}"
                f"{', …' if len(complete) > _RUNS_NAMED else ''}): choose one by job and run"
            )
        return complete[0]

    def _of_output(
        self, place: OpenLetters, output: ExtendableSink, context: OpenContext
    ) -> LetterSet | None:
        shown = output.shown(context)
        if shown is None or self.run not in {None, shown.run}:
            failed = next((one for one in place.sets(job=self.job, run=self.run) if not one.complete), None)
            if failed is not None:
                return failed  # refused as such: that says more than what is published
        if shown is None:
            where = output.serialize().get("url")  # type: ignore[attr-defined]  # it is a sink besides
            raise UsageError(f"nothing is published at {where}: a replay needs an output that it completes")
        for name, wanted, there in (("job", self.job, shown.job), ("run", self.run, shown.run)):
            if wanted is not None and wanted != there:
                raise UsageError(
                    f"the letters of {name} {wanted!r} are stale: {shown.url} shows {name} {there!r} now; "
                    "give the output that they belong to"
                )
        found = place.find(place.name_of(shown.job, shown.run))
        if found is not None and found.records and found.generation != shown.generation:
            raise UsageError(
                f"the letters at {found.url} are stale (generation {found.generation}): the run was done "
                f"again since, {shown.url} shows {shown.generation}; nothing was replayed"
            )
        return found

    def _resumed(self, place: OpenLetters, context: OpenContext) -> LetterSet | None:
        name = str(context.state[_SET])
        if not name:
            return None
        found = place.find(name)
        if found is None:
            raise changed(f"{place.url} ({name})")
        return found


class OpenDeadLetterSource(OpenSource):
    """An open :class:`DeadLetterSource`: one partition."""

    def __init__(
        self, place: OpenLetters, found: LetterSet | None, *, only: LetterFilter, log: logging.Logger
    ) -> None:
        self._place = place
        self._set = found
        self._only = only
        self._log = log
        self._closed = threading.Event()

    @property
    @override
    def fingerprints(self) -> Mapping[str, str]:
        name = "" if self._set is None else self._set.name
        return {
            "source": short_hash(self._place.url, name),
            "query": short_hash(self._only.serialize()),
        }

    @property
    @override
    def partitions(self) -> Sequence[str]:
        return ("letters",)

    @property
    @override
    def total(self) -> Total | None:
        # A filter may leave letters out: how many is known once they are read.
        return Total(records=0 if self._set is None else self._set.records, exact=self._set is None)

    @property
    @override
    def environment(self) -> Mapping[str, Any]:
        place = {"source": "dead letters", "place": self._place.url}
        if self._set is None:
            return {**place, "letters": 0}
        return {**place, "job": self._set.job, "run": self._set.run, "letters": self._set.records}

    @property
    @override
    def state(self) -> Mapping[str, Any]:
        return {_SET: "" if self._set is None else self._set.name}

    @override
    def read(self, partition: int, after: Cursor | None, sizing: Sizing) -> Iterator[Page]:
        del partition
        if self._set is None:
            return
        # Looked at again: what an earlier replay had left half done was ended since.
        found = self._place.find(self._set.name)
        if found is None:
            raise changed(self._set.url)
        if after is not None and Revision(after["generation"], after["revision"]) != found.state:
            raise changed(found.url)
        lines = self._place.lines(found, None if after is None else after["position"])
        yield from self._pages(self._chosen(lines), found, sizing)

    @override
    def close(self) -> None:
        self._closed.set()
        self._place.close()

    def _chosen(self, lines: Iterator[Line]) -> Iterator[Line]:
        tired = unreadable = 0
        for line in lines:
            if self._closed.is_set():
                raise TransientError("dead letters were being read when the source was closed")
            if self._only.replayable(line.letter):
                yield line
            elif self._only.matches(line.letter):
                unreadable += line.letter.stage == "source"
                tired += line.letter.stage != "source"
        if unreadable:
            self._log.warning(
                "%s letters are left alone: their records could not be read; mend these in the source, and "
                "run the export again",
                f"{unreadable:,}",
            )
        if tired:
            self._log.warning(
                "%s letters are left alone: they failed %s times already (max_replays)",
                f"{tired:,}",
                self._only.max_replays,
            )

    @staticmethod
    def _pages(lines: Iterator[Line], found: LetterSet, sizing: Sizing) -> Iterator[Page]:
        ends: list[Mapping[str, Any]] = []
        records: list[Record] = []
        nbytes = 0
        for line in lines:
            record = replayed_record(line)
            ends.append(line.position)
            records.append(record)
            nbytes += record_size(record)
            if len(records) >= sizing.page_records or nbytes >= sizing.page_bytes:
                yield Page(records, nbytes, cursor_at=partial(_cursor, found.state, ends))
                ends, records, nbytes = [], [], 0
        if records:
            yield Page(records, nbytes, cursor_at=partial(_cursor, found.state, ends))


def _cursor(state: Revision, ends: Sequence[Mapping[str, Any]], index: int) -> Cursor:
    return {
        "generation": state.generation,
        "revision": state.revision,
        "position": dict(ends[index]),
    }


def replayed_record(line: Line) -> ReplayedRecord:
    """Return the record of a letter, as it was given up."""
    letter = line.letter
    return ReplayedRecord(
        id=letter.id,
        body=bytes(letter.record),
        routing=letter.routing,
        index=letter.index,
        version=letter.version,
        letter=letter,
    )
