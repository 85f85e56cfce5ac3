"""What a manifest declares, read strictly: it is data, and must neither lead out nor contradict itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, Self, cast

import msgspec

from airflow_batchkit.connectors.object_storage.compression import EXTENSIONS
from airflow_batchkit.connectors.object_storage.manifest import (
    HeadType,
    ManifestHead,
    Part,
    decode_head,
    head_lines,
)
from airflow_batchkit.connectors.object_storage.ndjson import FORMAT, FORMAT_VERSION
from airflow_batchkit.engine.checkpoint import Counts
from airflow_batchkit.engine.exceptions import UsageError

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.store import ObjectStore
    from airflow_batchkit.connectors.object_storage.verify.findings import Findings

_IN_MEMORY = 1024 * 1024
_PIECE = 256 * 1024
_LONGEST_LINE = 64 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Sums(msgspec.Struct, frozen=True):
    """What a manifest says of all its parts together."""

    parts: int
    records: int
    bytes: int


class LettersHead(ManifestHead, kw_only=True, frozen=True):
    """Head of ``letters.json``."""

    total: Sums


class OutputHead(LettersHead, kw_only=True, frozen=True):
    """Head of ``manifest.json``.

    :param location: where it was published.
    :param compression: of the parts.
    :param created_at: when, ISO 8601.
    :param started_at: when the run began, in seconds since the epoch.
    :param counts: what became of the records.
    :param fingerprints: of source, query, transform, …
    :param snapshots: how many the export spans.
    :param dead_letters: their place and number; empty where the run had no place for them.
    """

    location: str
    compression: str | None
    created_at: str
    counts: dict[str, int]
    fingerprints: dict[str, str]
    started_at: float = 0.0
    snapshots: int = 1
    dead_letters: dict[str, Any] = msgspec.field(default_factory=dict)


class BadManifestError(Exception):
    """The file is not what this package writes; its text says where, for people."""


class Declared(Generic[HeadType]):
    """A manifest as it was at one moment, kept in a temporary file (in memory while it is small).

    :param head: what stands before the parts.
    :param etag: of the manifest.
    :param file: the manifest; its parts are read from it as often as needed.
    :param names: which names parts may have.
    """

    def __init__(self, head: HeadType, *, etag: str, file: BinaryIO, names: PartNames) -> None:
        self.head = head
        self.etag = etag
        self.names = names
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def fields(self) -> dict[str, Any]:
        """The head as it is written, with what this version does not know."""
        self._file.seek(0)
        lines = head_lines(self._file).rstrip().rstrip(b",")
        return msgspec.json.decode(lines + b"}", type=dict[str, Any])

    def parts(self, findings: Findings | None = None) -> Iterator[Part]:
        """Give the parts that can be read: those whose names this package gives, each once.

        :param findings: told of the others.
        :raises BadManifestError: the file is not as this package writes it.
        """
        self._file.seek(0)
        head_lines(self._file)
        self.names.begin()
        for part in _parts(self._file):
            problem, readable = self.names.look(part)
            if problem and findings is not None:
                findings.add("manifest", f"the manifest {problem}")
            if readable:
                yield part


class PartNames:
    """Which names the parts of one output have: numbered from 1 without gaps, partition by partition.

    So that a name can be told from any other without remembering all of them.

    :param stem: first word of the names.
    :param generation: the run's.
    :param extension: end of the names, with the dot.
    """

    def __init__(self, *, stem: str, generation: str, extension: str) -> None:
        self._generation = generation
        self._extension = extension
        self._name = re.compile(
            rf"{stem}-(?P<partition>[^/\x00-\x1f\x7f]+)-(?P<number>\d{{5}})-"
            r"(?P<generation>[0-9a-f]{8})(?P<extension>\..+)"
        )
        self._numbers: Counter[str] = Counter()

    def begin(self) -> None:
        """Forget what was seen: the parts are gone through from the first."""
        self._numbers.clear()

    def look(self, part: Part) -> tuple[str, bool]:
        """Look at the next part of the manifest.

        :returns: what is wrong with it, empty if nothing; and whether it can be read all the same.
        """
        name = self._name.fullmatch(part.key)
        if name is None or not self._is_ours(name) or name["partition"] != part.partition:
            return f"names {part.key!a}, which is no name of this output's, and is not looked at", False
        if part.records < 0 or part.bytes < 0 or not _SHA256.fullmatch(part.sha256):
            return f"says of {part.key} what cannot be (records, bytes or sha256)", False
        number, before = int(name["number"]), self._numbers[part.partition]
        if number <= before:
            return f"names {part.key} twice, or out of order", False
        self._numbers[part.partition] = number
        if number > before + 1:
            return f"lacks {number - before - 1:,} parts of {part.partition} before {part.key}", True
        return "", True

    def belongs(self, key: str) -> bool:
        """Whether a key is a name of this output's, once the manifest has been gone through."""
        name = self._name.fullmatch(key)
        return (
            name is not None
            and self._is_ours(name)
            and 0 < int(name["number"]) <= self._numbers[name["partition"]]
        )

    def is_older(self, key: str) -> bool:
        """Whether a key is a name that this package gives, of another generation or another compression."""
        return self._name.fullmatch(key) is not None

    def _is_ours(self, name: re.Match[str]) -> bool:
        return name["generation"] == self._generation and name["extension"] == self._extension


def read_declared(
    store: ObjectStore, key: str, head_type: type[HeadType], *, stem: str = "part"
) -> Declared[HeadType]:
    """Read a manifest, once.

    :param stem: first word of the parts' names.
    :raises MissingObjectError: there is none.
    :raises BadManifestError: it is not as this package writes it.
    :raises UsageError: a newer version of this package wrote it.
    """
    file = cast("BinaryIO", SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115  # closed by Declared
    try:
        with store.read(key) as reading:
            etag = reading.etag
            while piece := reading.file.read(_PIECE):
                file.write(piece)
        file.seek(0)
        head = _head(file, head_type)
    except BaseException:
        file.close()
        raise
    extension = EXTENSIONS[head.compression] if isinstance(head, OutputHead) else ""
    names = PartNames(stem=stem, generation=head.generation, extension=f".{FORMAT}{extension}")
    return Declared(head, etag=etag, file=file, names=names)


def contradictions(head: OutputHead, sums: Sums) -> Iterator[tuple[str, str]]:
    """Give what does not add up inside a manifest: kind and text.

    :param sums: of the parts that it names.
    """
    for name in ("parts", "records", "bytes"):
        total, really = getattr(head.total, name), getattr(sums, name)
        if total != really:
            yield "manifest", f"the manifest says {total:,} {name} in all, its parts add up to {really:,}"
    counts = msgspec.convert(head.counts, Counts)
    if counts.written != head.total.records:
        yield (
            "counts",
            f"the run wrote {counts.written:,} records, the manifest says {head.total.records:,} in all",
        )
    difference = counts.difference()
    if difference is not None:
        yield "counts", f"the run's counts do not add up: {difference}"
    if counts.skipped:
        yield "counts", f"{counts.skipped:,} records were skipped"
    for kept in (head.counts.get("dead_lettered"), head.dead_letters.get("count")):
        if kept is not None and kept != counts.dead_lettered:
            yield (
                "counts",
                f"{counts.dead_lettered:,} records were dead-lettered, {kept:,} are said to be kept",
            )


def _head(file: BinaryIO, head_type: type[HeadType]) -> HeadType:
    try:
        lines = head_lines(file)
        version = decode_head(lines, ManifestHead)
        if version.format == FORMAT and version.format_version > FORMAT_VERSION:
            raise UsageError(
                f"the manifest has format version {version.format_version}, this version of "
                f"airflow-batchkit knows {FORMAT_VERSION}: upgrade it"
            )
        head = decode_head(lines, head_type)
    except msgspec.DecodeError as error:
        raise BadManifestError(f"is damaged, or not one of this package ({error})") from error
    if head.format != FORMAT or head.format_version != FORMAT_VERSION:
        raise BadManifestError(f"has an unknown format {head.format!a} {head.format_version}")
    if isinstance(head, OutputHead) and head.compression not in EXTENSIONS:
        raise BadManifestError(f"names an unknown compression {head.compression!a}")
    return head


def _parts(file: BinaryIO) -> Iterator[Part]:
    expected = True
    while (line := file.readline(_LONGEST_LINE).strip()).startswith(b"{"):
        if not expected:
            raise BadManifestError("is damaged: its parts are not parted by commas")
        try:
            part = msgspec.json.decode(line.rstrip(b","), type=Part)
        except msgspec.DecodeError as error:
            raise BadManifestError(f"is damaged among its parts ({error})") from error
        expected = line.endswith(b",")
        yield part
    if line == b"]":
        line = file.readline(_LONGEST_LINE).strip()
    if line != b"}" or file.readline(_LONGEST_LINE).strip():
        raise BadManifestError("is cut off, or goes on behind its end")
