"""Reads dead letters as what they were: the records, exactly as they were given up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from airflow_batchkit.connectors.object_storage.letters_files import (
    LetterSet,
    Line,
    Revision,
    changed,
    find_sets,
    read_lines,
    read_set,
    set_folder,
    short_hash,
)
from airflow_batchkit.connectors.object_storage.letters_filter import LetterFilter
from airflow_batchkit.connectors.object_storage.locations import parse_location
from airflow_batchkit.connectors.object_storage.manifest import MANIFEST, read_head
from airflow_batchkit.connectors.object_storage.patience import patiently
from airflow_batchkit.connectors.object_storage.s3_settings import S3Settings, check_s3_settings
from airflow_batchkit.connectors.object_storage.store import ObjectStore, open_store
from airflow_batchkit.engine.dead_letters import ReplayedRecord
from airflow_batchkit.engine.exceptions import BatchkitError, TransientError, UsageError
from airflow_batchkit.engine.source import OpenSource
from airflow_batchkit.engine.types import Cursor, Page, Record, Sizing, Total, record_size
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.sink import ObjectStorageSink
    from airflow_batchkit.engine.source import OpenContext

_FOLDER = "folder"
_RUNS_NAMED = 5


@dataclass(frozen=True, kw_only=True, repr=False)
class DeadLetterSource(Value):
    """The records of the dead letters of one run, in the letters' order.

    :param url: the place, as :class:`DeadLetters` was given it.
    :param conn_id: name of the connection; not used for ``file://``. Default ``aws_default``.
    :param only: which letters. Default: all that were replayed less than ten times.
    :param job: whose letters, where several jobs share the place.
    :param run: of which run, where the place holds several runs' letters.
    :param output: the output that lacks these records: the letters of the run that it shows are read.
    :param s3_settings: as the place has them: encryption, expected bucket owner, … Default: none.
    """

    __templated__: ClassVar[tuple[str, ...]] = (
        "url",
        "conn_id",
        "only",
        "job",
        "run",
        "output",
        "s3_settings",
    )

    url: str
    conn_id: str = "aws_default"
    only: LetterFilter = field(default_factory=LetterFilter)
    job: str | None = None
    run: str | None = None
    output: ObjectStorageSink | None = None
    s3_settings: S3Settings | None = None

    @override
    def check(self) -> None:
        """Refuse a URL that cannot work.

        :raises UsageError: what is wrong with it.
        """
        check_s3_settings(self.s3_settings, parse_location(self.url))

    def open_place(self, context: OpenContext) -> ObjectStore:
        """Connect to the place; nothing is asked of it yet."""
        return open_store(parse_location(self.url), self.conn_id, context, s3_settings=self.s3_settings)

    def open(self, context: OpenContext) -> OpenDeadLetterSource:
        """Connect, and find the run's letters.

        :raises UsageError: no such place, letters of several runs, or of another run than the output's.
        :raises TransientError: the store does not answer.
        """
        store = self.open_place(context)
        try:
            store.check()
            found = self._resumed(store, context) if context.state else self.choose(store, context)
        except BatchkitError:
            store.close()
            raise
        return OpenDeadLetterSource(store, found, only=self.only, log=context.log)

    def choose(self, store: ObjectStore, context: OpenContext) -> LetterSet | None:
        """Return the set of letters that is meant, None where there are no letters.

        :raises UsageError: the letters do not fit the output, or are of several runs.
        """
        if self.output is not None:
            return self._of_output(store, self.output, context)
        found = [one for one in find_sets(store, job=self.job, run=self.run) if one.records]
        if len(found) > 1:
            named = ", ".join(f"{one.head.job} run {one.head.run}" for one in found[:_RUNS_NAMED])
            raise UsageError(
                f"{store.location.url} holds the letters of {len(found):,} runs ({named}"
                f"{', …' if len(found) > _RUNS_NAMED else ''}): choose one by job and run"
            )
        return found[0] if found else None

    def _of_output(
        self, store: ObjectStore, output: ObjectStorageSink, context: OpenContext
    ) -> LetterSet | None:
        opened = open_store(
            parse_location(output.url), output.conn_id, context, s3_settings=output.s3_settings
        )
        with closing(opened) as target:
            published = patiently(lambda: read_head(target, MANIFEST))
        where = parse_location(output.url).url
        if published is None:
            raise UsageError(f"nothing is published at {where}: a replay needs an output that it completes")
        head = published.head
        for name, wanted, there in (("job", self.job, head.job), ("run", self.run, head.run)):
            if wanted is not None and wanted != there:
                raise UsageError(
                    f"the letters of {name} {wanted!r} are stale: {where} shows {name} {there!r} now; "
                    "give the output that they belong to"
                )
        found = read_set(store, set_folder(head.job, head.run))
        if found is not None and found.records and found.head.generation != head.generation:
            raise UsageError(
                f"the letters at {store.location.url}/{found.folder} are stale (generation "
                f"{found.head.generation}): the run was done again since, {where} shows {head.generation}; "
                "nothing was replayed"
            )
        return found

    def _resumed(self, store: ObjectStore, context: OpenContext) -> LetterSet | None:
        folder = str(context.state[_FOLDER])
        if not folder:
            return None
        found = read_set(store, folder)
        if found is None:
            raise changed(store, folder)
        return found


class OpenDeadLetterSource(OpenSource):
    """An open :class:`DeadLetterSource`: one partition."""

    def __init__(
        self, store: ObjectStore, found: LetterSet | None, *, only: LetterFilter, log: logging.Logger
    ) -> None:
        self._store = store
        self._set = found
        self._only = only
        self._log = log
        self._closed = threading.Event()

    @property
    @override
    def fingerprints(self) -> Mapping[str, str]:
        folder = "" if self._set is None else self._set.folder
        return {
            "source": short_hash(self._store.location.url, folder),
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
        place = {"source": "dead letters", "place": self._store.location.url}
        if self._set is None:
            return {**place, "letters": 0}
        return {
            **place,
            "job": self._set.head.job,
            "run": self._set.head.run,
            "letters": self._set.records,
        }

    @property
    @override
    def state(self) -> Mapping[str, Any]:
        return {_FOLDER: "" if self._set is None else self._set.folder}

    @override
    def read(self, partition: int, after: Cursor | None, sizing: Sizing) -> Iterator[Page]:
        del partition
        if self._set is None:
            return
        # Looked at again: what an earlier replay had left half done was ended since.
        found = read_set(self._store, self._set.folder)
        if found is None:
            raise changed(self._store, self._set.folder)
        begin = {} if after is None else dict(after)
        if begin and Revision(begin["generation"], begin["revision"]) != found.revision:
            raise changed(self._store, found.folder)
        lines = read_lines(self._store, found, part=begin.get("part", 0), after_line=begin.get("line", 0))
        yield from self._pages(self._chosen(lines), found, sizing)

    @override
    def close(self) -> None:
        self._closed.set()
        self._store.close()

    def _chosen(self, lines: Iterator[Line]) -> Iterator[Line]:
        tired = 0
        for line in lines:
            if self._closed.is_set():
                raise TransientError("dead letters were being read when the source was closed")
            if self._only.replayable(line.letter):
                yield line
            elif self._only.matches(line.letter):
                tired += 1
        if tired:
            self._log.warning(
                "%s letters are left alone: they failed %s times already (max_replays)",
                f"{tired:,}",
                self._only.max_replays,
            )

    @staticmethod
    def _pages(lines: Iterator[Line], found: LetterSet, sizing: Sizing) -> Iterator[Page]:
        ends: list[tuple[int, int]] = []
        records: list[Record] = []
        nbytes = 0
        for line in lines:
            record = replayed_record(line)
            ends.append((line.part, line.number))
            records.append(record)
            nbytes += record_size(record)
            if len(records) >= sizing.page_records or nbytes >= sizing.page_bytes:
                yield Page(records, nbytes, cursor_at=partial(_cursor, found.revision, ends))
                ends, records, nbytes = [], [], 0
        if records:
            yield Page(records, nbytes, cursor_at=partial(_cursor, found.revision, ends))


def _cursor(revision: Revision, ends: Sequence[tuple[int, int]], index: int) -> Cursor:
    part, line = ends[index]
    return {
        "generation": revision.generation,
        "revision": revision.revision,
        "part": part,
        "line": line,
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
