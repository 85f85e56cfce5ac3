"""One object of an output: its bytes as the manifest names them, whole, and every line readable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from airflow_batchkit.connectors.object_storage.decompression import BrokenStreamError, make_decompressor
from airflow_batchkit.connectors.object_storage.store import MissingObjectError
from airflow_batchkit.connectors.object_storage.verify.lines import BadLineError, LineReader
from airflow_batchkit.connectors.patience import patiently
from airflow_batchkit.engine.exceptions import StoppedError

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.decompression import Decompressor
    from airflow_batchkit.connectors.object_storage.manifest import Part
    from airflow_batchkit.connectors.object_storage.store import ObjectStore

LineType = TypeVar("LineType")
SeenType_contra = TypeVar("SeenType_contra", contravariant=True)

_PIECE = 128 * 1024


class Visitor(Protocol[SeenType_contra]):
    """Looks at the lines of one object as they pass by."""

    def see(self, lines: Sequence[SeenType_contra]) -> None:
        """Look at some lines."""
        ...

    def done(self) -> None:
        """Keep what was seen: the object has been read. A reading that is tried again has another visitor."""
        ...


@dataclass(frozen=True, slots=True)
class ObjectTask:
    """One object to read.

    :param part: what the manifest says of it.
    :param wanted: numbers of the lines to keep, ascending, from 1.
    """

    part: Part
    wanted: tuple[int, ...] = ()


@dataclass(slots=True)
class ObjectFound:
    """What an object turned out to be.

    :param part: what the manifest says of it.
    :param records: lines that could be read.
    :param problems: kind and text of each.
    :param kept: the wanted lines, by number.
    """

    part: Part
    records: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    kept: list[tuple[int, bytes]] = field(default_factory=list)


class ObjectReader(Generic[LineType]):
    """Reads objects, each as a stream and in bounded memory; several threads may call it at a time.

    :param store: where they lie.
    :param folder: prefix of their keys: empty, or a folder with a slash at its end.
    :param compression: ``"gzip"``, ``"zstd"`` or None.
    :param decode: takes a line without its line feed.
    :param visitor: makes what looks at the lines of one object; None: nothing does.
    :param stop_asked: returns the reason when someone asks to stop, else None.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        folder: str,
        compression: str | None,
        decode: Callable[[bytes], LineType],
        visitor: Callable[[Part], Visitor[LineType]] | None = None,
        stop_asked: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._store = store
        self._folder = folder
        self._compression = compression
        self._decode = decode
        self._visitor = visitor
        self._stop_asked = stop_asked

    def __call__(self, task: ObjectTask) -> ObjectFound:
        """Read one object to its end, again from its beginning where the connection breaks.

        :raises StoppedError: someone asked to stop.
        :raises TransientError: the store does not answer.
        """
        return patiently(lambda: self._read(task))

    def _read(self, task: ObjectTask) -> ObjectFound:
        found = ObjectFound(task.part)
        visitor = None if self._visitor is None else self._visitor(task.part)
        lines = LineReader(self._decode, wanted=task.wanted)
        content = _Content(make_decompressor(self._compression), lines, visitor)
        digest, size = hashlib.sha256(), 0
        try:
            with closing(self._pieces(f"{self._folder}{task.part.key}")) as pieces:
                for piece in pieces:
                    digest.update(piece)
                    size += len(piece)
                    content.feed(piece)
        except MissingObjectError:
            found.problems.append(("missing", f"{task.part.key} is not there"))
            return found
        content.finish()
        if visitor is not None:
            visitor.done()
        found.records = lines.count - lines.bad
        found.kept = lines.kept
        found.problems += _bytes_problems(task.part, size, digest.hexdigest())
        found.problems += content.problems(task.part)
        return found

    def _pieces(self, key: str) -> Generator[bytes, None, None]:
        with self._store.stream(key) as file:
            while piece := file.read(_PIECE):
                reason = self._stop_asked()
                if reason is not None:
                    raise StoppedError(reason)
                yield piece


class _Content(Generic[LineType]):
    """What an object holds, as far as it can be read."""

    def __init__(
        self, decompressor: Decompressor, lines: LineReader[LineType], visitor: Visitor[LineType] | None
    ) -> None:
        self._decompressor = decompressor
        self._lines = lines
        self._visitor = visitor
        self._broken: tuple[str, str] | None = None

    def feed(self, data: bytes) -> None:
        if self._broken is not None:
            return
        try:
            for piece in self._decompressor.pieces(data):
                lines = self._lines.feed(piece)
                if self._visitor is not None:
                    self._visitor.see(lines)
        except BrokenStreamError as error:
            self._broken = ("compression", f"{error}, after {self._lines.count:,} lines")
        except BadLineError as error:
            self._broken = ("lines", f"cannot be read: {error}")

    def finish(self) -> None:
        if self._broken is None:
            try:
                self._decompressor.finish()
            except BrokenStreamError as error:
                self._broken = ("compression", f"{error}, after {self._lines.count:,} lines")
            else:
                self._lines.finish()

    def problems(self, part: Part) -> Iterator[tuple[str, str]]:
        """Give what is wrong; the number of lines of a broken stream says nothing more."""
        lines = self._lines
        if self._broken is not None:
            kind, text = self._broken
            yield kind, f"{part.key} {text}"
        elif lines.count != part.records:
            yield "records", f"{part.key} has {lines.count:,} lines, the manifest says {part.records:,}"
        if lines.bad:
            yield "lines", f"{part.key} has {lines.bad:,} lines that are no records, {lines.first_bad}"


def _bytes_problems(part: Part, size: int, sha256: str) -> Iterator[tuple[str, str]]:
    if size != part.bytes:
        yield "bytes", f"{part.key} has {size:,} bytes, the manifest says {part.bytes:,}"
    elif sha256 != part.sha256:
        yield "bytes", f"{part.key} has the right size, but not the content that the manifest names (sha256)"
