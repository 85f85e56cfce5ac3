"""``manifest.json``: what an output consists of. Whoever reads by it always sees one whole output.

It is written line by line and read back line by line, so that its size does not matter; it is ordinary JSON.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar, cast

import msgspec

from airflow_batchkit.connectors.object_storage.ndjson import FORMAT, FORMAT_VERSION
from airflow_batchkit.connectors.object_storage.store import MissingObjectError
from airflow_batchkit.engine.exceptions import TransientError, UsageError

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.store import ObjectStore

MANIFEST = "manifest.json"

HeadType = TypeVar("HeadType", bound="ManifestHead")

_IN_MEMORY = 1024 * 1024
_PIECE = 256 * 1024
_MAX_HEAD_LINES = 1_000
_PARTS = b'  "parts": ['


class Part(msgspec.Struct, kw_only=True, frozen=True):
    """One object of an output.

    :param key: its name, beside the manifest.
    :param partition: name of the part of the source.
    :param records: how many lines it has.
    :param bytes: its size, compressed.
    :param sha256: of its content, compressed.
    """

    key: str
    partition: str
    records: int
    bytes: int
    sha256: str


class ManifestHead(msgspec.Struct, kw_only=True, frozen=True):
    """What :func:`read_head` reads: the lines before the parts.

    :param job: what wrote the output.
    :param run: which run of it.
    :param generation: names the run's output.
    :param token: the leg that published it.
    :param complete: False: dead letters of a run that failed; it settles all of them when it goes on.
    """

    format: str
    format_version: int
    job: str
    run: str
    generation: str
    token: str
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundManifest:
    """The manifest that lies there.

    :param head: its first lines.
    :param etag: to replace exactly this one.
    """

    head: ManifestHead
    etag: str


class ManifestFile:
    """A manifest being written into a temporary file (in memory while it is small), in a ``with`` block."""

    def __init__(self) -> None:
        self._files = ExitStack()
        self._lines = self._files.enter_context(_temporary_file())
        self._file = self._files.enter_context(_temporary_file())
        self.parts = 0
        self.records = 0
        self.bytes = 0
        self.sha256 = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def add(self, part: Part) -> None:
        """Add the next part."""
        self._lines.write(b",\n    " if self.parts else b"\n    ")
        self._lines.write(msgspec.json.encode(part))
        self.parts += 1
        self.records += part.records
        self.bytes += part.bytes

    def finish(self, fields: Mapping[str, Any]) -> BinaryIO:
        """Put the head before the parts and return the whole file.

        :param fields: what :class:`ManifestHead` needs besides the format, and anything else for the readers.
        """
        totals = {"parts": self.parts, "records": self.records, "bytes": self.bytes}
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, **fields, "total": totals}
        digest = hashlib.sha256()
        for piece in self._pieces(head):
            digest.update(piece)
            self._file.write(piece)
        self.sha256 = digest.hexdigest()
        return cast("BinaryIO", self._file)

    def _pieces(self, head: Mapping[str, Any]) -> Iterator[bytes]:
        yield b"{\n"
        for name, value in head.items():
            yield b"  %b: %b,\n" % (msgspec.json.encode(name), msgspec.json.encode(value))
        yield _PARTS
        self._lines.seek(0)
        while piece := self._lines.read(_PIECE):
            yield piece
        yield b"\n  ]\n}\n" if self.parts else b"]\n}\n"


def read_head(store: ObjectStore, key: str) -> FoundManifest | None:
    """Read the first lines of the manifest that lies there, None when there is none.

    :raises UsageError: there is a ``manifest.json`` that this package did not write: it is not replaced.
    """
    try:
        with store.read(key) as reading:
            return FoundManifest(head=decode_head(head_lines(reading.file), ManifestHead), etag=reading.etag)
    except MissingObjectError:
        return None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UsageError(
            f"{store.location.url}/{key} was not written by this package; "
            "move it away, or choose another prefix"
        ) from error


def read_parts(store: ObjectStore, key: str, *, generation: str | None = None) -> Iterator[Part]:
    """Read the parts that a manifest names, one by one.

    :param generation: the one that it has to be of. Default: any.
    :raises MissingObjectError: there is no manifest.
    :raises TransientError: it is of another generation.
    """
    with store.read(key) as reading:
        head = head_lines(reading.file)
        if generation is not None and decode_head(head, ManifestHead).generation != generation:
            raise TransientError(
                f"read of {store.location.url}/{key}: it is not of {generation}; may work when tried again"
            )
        for line in reading.file:
            text = line.strip().rstrip(b",")
            if not text.startswith(b"{"):
                return
            yield msgspec.json.decode(text, type=Part)


def head_lines(file: BinaryIO) -> bytes:
    """Read the lines before the parts, and the one that begins them."""
    head = b""
    for _ in range(_MAX_HEAD_LINES):
        line = file.readline(_IN_MEMORY)
        if not line or line.startswith(_PARTS):
            break
        head += line
    return head


def decode_head(lines: bytes, head: type[HeadType]) -> HeadType:
    """Decode what :func:`head_lines` returned.

    :raises msgspec.DecodeError: it is no such head.
    """
    return msgspec.json.decode(lines.rstrip().rstrip(b",") + b"}", type=head)


def _temporary_file() -> SpooledTemporaryFile[bytes]:
    return SpooledTemporaryFile(max_size=_IN_MEMORY)
