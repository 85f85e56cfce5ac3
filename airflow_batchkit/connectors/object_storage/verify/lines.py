"""The lines of one object: each must be a JSON object with an identity; nothing else of it is decoded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import msgspec

LineType = TypeVar("LineType")

_MAX_LINE_BYTES = 256 * 1024 * 1024
# Every escape is matched, so that the second backslash of an escaped one does not begin another.
_ESCAPE = re.compile(rb"\\(?:(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL)


class Line(msgspec.Struct, gc=False):
    """What is looked at in the line of a record.

    :param id: ``_id``.
    :param index: ``_index``, where the source was more than one.
    :param routing: ``_routing``: one id under two routing values is two documents.
    :param version: ``_version``, where the export spans several snapshots.
    """

    id: str = msgspec.field(name="_id")
    index: str | None = msgspec.field(name="_index", default=None)
    routing: str | None = msgspec.field(name="_routing", default=None)
    version: int | None = msgspec.field(name="_version", default=None)

    @property
    def identity(self) -> str:
        """Which document this is, for people."""
        text = f"_id {self.id!a}"
        if self.index is not None:
            text += f" of _index {self.index!a}"
        return text if self.routing is None else f"{text} with _routing {self.routing!a}"


class BadLineError(Exception):
    """One line is not what it should be; its text says why, without what the line holds."""


class LineReader(Generic[LineType]):
    """Cuts the content of one object into lines and decodes them.

    :param decode: takes a line without its line feed.
    :param wanted: numbers of the lines to keep as they are, ascending, the first line is 1.
    """

    def __init__(self, decode: Callable[[bytes], LineType], *, wanted: Sequence[int] = ()) -> None:
        self._decode = decode
        self._wanted = list(reversed(wanted))
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self.count = 0
        self.bad = 0
        self.first_bad = ""
        self.kept: list[tuple[int, bytes]] = []

    def feed(self, piece: bytes) -> list[LineType]:
        """Take the next piece of the content, give the lines that ended in it.

        :raises BadLineError: a line is so long that it cannot be one.
        """
        end = piece.rfind(b"\n")
        if end < 0:
            self._hold(piece)
            return []
        text = b"".join([*self._rest, piece[:end]])
        self._rest, self._rest_bytes = [], 0
        self._hold(piece[end + 1 :])
        lines = text.split(b"\n")
        self._keep(lines)
        decoded = self._decoded(text, lines)
        self.count += len(lines)
        return decoded

    def finish(self) -> None:
        """Note a last line without an end."""
        if self._rest_bytes:
            self.count += 1
            self._is_bad(self.count, "it has no line feed at its end")

    def _hold(self, piece: bytes) -> None:
        self._rest.append(piece)
        self._rest_bytes += len(piece)
        if self._rest_bytes > _MAX_LINE_BYTES:
            raise BadLineError(f"line {self.count + 1:,} has more than {_MAX_LINE_BYTES // 2**20} MiB")

    def _keep(self, lines: list[bytes]) -> None:
        while self._wanted and self._wanted[-1] <= self.count + len(lines):
            number = self._wanted.pop()
            self.kept.append((number, lines[number - self.count - 1]))

    def _decoded(self, text: bytes, lines: list[bytes]) -> list[LineType]:
        decode = self._decode
        try:
            if not text.isascii():
                text.decode()
            return [decode(line) for line in lines]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return list(self._one_by_one(lines))

    def _one_by_one(self, lines: list[bytes]) -> Iterator[LineType]:
        for number, line in enumerate(lines, self.count + 1):
            try:
                line.decode()
                yield self._decode_also_half_characters(line)
            except UnicodeDecodeError:
                self._is_bad(number, "it is not UTF-8")
            except RecursionError:
                self._is_bad(number, "it is nested too deeply")
            except msgspec.DecodeError as error:
                self._is_bad(number, str(error).partition(" - at `$")[0])

    def _decode_also_half_characters(self, line: bytes) -> LineType:
        # Elasticsearch keeps the escape of half a surrogate pair, and so does the export; msgspec refuses it.
        try:
            return self._decode(line)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return self._decode(_ESCAPE.sub(lambda escape: b"\\u003f" if escape[1] else escape[0], line))

    def _is_bad(self, number: int, why: str) -> None:
        self.bad += 1
        self.first_bad = self.first_bad or f"line {number:,}: {why}"
