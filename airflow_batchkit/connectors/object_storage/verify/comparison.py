"""Compares an export with the index that it came from: how many documents, and a sample byte for byte."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from typing_extensions import override

from airflow_batchkit.connectors.object_storage.ndjson import format_lines
from airflow_batchkit.connectors.object_storage.staging import PARTIAL_FOLDER
from airflow_batchkit.connectors.object_storage.verify.findings import Findings
from airflow_batchkit.connectors.object_storage.verify.lines import Line
from airflow_batchkit.connectors.object_storage.verify.output import Onlooker
from airflow_batchkit.engine.types import Record

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.manifest import Part
    from airflow_batchkit.connectors.object_storage.verify.declared import OutputHead
    from airflow_batchkit.connectors.object_storage.verify.objects import ObjectFound

_DOCUMENTS_AT_ONCE = 20


class Live(Protocol):
    """The index as it is now."""

    def count(self) -> int:
        """Count what the export's query matches."""
        ...

    def documents(self, ids: Sequence[str]) -> list[Record]:
        """Fetch documents by their ids, each with index, routing and version."""
        ...

    def is_copied_whole(self, fingerprints: Mapping[str, str]) -> bool:
        """Tell from an export's fingerprints whether its lines are the documents as they were indexed."""
        ...


@dataclass(slots=True, kw_only=True)
class Compared:
    """How an export and its index differ.

    :param exported: documents that the export read; None where it was of a part of the index.
    :param live: documents that the query matches now.
    :param sampled: lines that were compared.
    :param by_bytes: whether their bytes were; else only whether the documents are there.
    :param differences: what differs.
    """

    exported: int | None = None
    live: int = 0
    sampled: int = 0
    by_bytes: bool = True
    differences: Findings = field(default_factory=Findings)

    def lines(self) -> Iterator[str]:
        """Give the report for people."""
        verdict = "differs from" if self.differences else "agrees with"
        how = "byte for byte" if self.by_bytes else "by id only, because the lines are not whole documents"
        yield (
            f"the export {verdict} the live index: {self.live:,} documents match now, "
            f"{self.sampled:,} were compared {how}"
        )
        yield from (f"difference: {line}" for line in self.differences.lines())

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "exported": self.exported,
            "live": self.live,
            "sampled": self.sampled,
            "by_bytes": self.by_bytes,
            "differences": self.differences.to_dict(),
        }


class Comparison(Onlooker):
    """Takes a sample of the lines while they are read, and looks the documents up.

    The export is cut into as many equal stretches as the sample has lines, and one line is taken of each. The
    same seed takes the same lines.

    :param connect: given the manifest, makes the index; called once.
    :param sample: how many lines.
    :param seed: which.
    """

    def __init__(self, connect: Callable[[OutputHead], Live], *, sample: int, seed: int) -> None:
        self._connect = connect
        self._sample = sample
        self._random = random.Random(seed)
        self._behind = 0
        self._lines: list[bytes] = []
        self._decode = msgspec.json.Decoder(Line).decode
        self._live: Live | None = None
        self._positions: Iterator[int] = iter(())
        self._position: int | None = None
        self.compared = Compared()

    @override
    def begin(self, head: OutputHead) -> None:
        self._live = self._connect(head)
        self.compared.live = self._live.count()
        self.compared.by_bytes = self._live.is_copied_whole(head.fingerprints)
        if "start_at" not in head.fingerprints and f"/{PARTIAL_FOLDER}/" not in head.location:
            self.compared.exported = head.counts.get("read")
        self._positions = self._drawn(head.total.records)
        self._position = next(self._positions, None)

    @override
    def wanted(self, part: Part) -> tuple[int, ...]:
        before, self._behind = self._behind, self._behind + part.records
        numbers = []
        while self._position is not None and self._position < self._behind:
            numbers.append(self._position - before + 1)
            self._position = next(self._positions, None)
        return tuple(numbers)

    @override
    def seen(self, found: ObjectFound) -> None:
        self._lines += [line for _, line in found.kept]
        while len(self._lines) >= _DOCUMENTS_AT_ONCE:
            self._look_up(self._lines[:_DOCUMENTS_AT_ONCE])
            del self._lines[:_DOCUMENTS_AT_ONCE]

    def finish(self, changed: int) -> Compared:
        """Look up the rest, and compare the numbers.

        :param changed: older versions of documents in the export, which the index has no longer.
        """
        if self._lines:
            self._look_up(self._lines)
            self._lines = []
        compared = self.compared
        if compared.exported is not None:
            compared.exported -= changed
            if compared.exported != compared.live:
                compared.differences.add(
                    "count",
                    f"the export read {compared.exported:,} documents, {compared.live:,} match now "
                    f"({compared.live - compared.exported:+,})",
                )
        return compared

    def _drawn(self, records: int) -> Iterator[int]:
        """Draw positions in the export, ascending."""
        stretches = min(self._sample, records)
        for number in range(stretches):
            first, end = number * records // stretches, (number + 1) * records // stretches
            yield self._random.randrange(first, end)

    def _look_up(self, texts: Sequence[bytes]) -> None:
        if self._live is None:
            raise RuntimeError("begin() comes before this call")
        lines = [(line, text) for text in texts if (line := self._decoded(text)) is not None]
        documents = self._live.documents(sorted({line.id for line, _ in lines}))
        for line, text in lines:
            self.compared.sampled += 1
            record = next((document for document in documents if _is_same(line, document)), None)
            if record is None:
                self.compared.differences.add("gone", f"{line.identity} is not in the live index")
            elif self.compared.by_bytes and _as_line(line, record) != text:
                self.compared.differences.add("changed", f"{line.identity} differs in the live index")

    def _decoded(self, text: bytes) -> Line | None:
        with suppress(msgspec.DecodeError, RecursionError):
            return self._decode(text)
        return None  # told already, as a line that is no record


def _is_same(line: Line, document: Record) -> bool:
    in_index = line.index is None or line.index == document.index
    return in_index and (line.id, line.routing) == (document.id, document.routing)


def _as_line(line: Line, document: Record) -> bytes:
    """Write a document as the export would have written it, with what the line says of it."""
    record = Record(
        id=document.id,
        body=document.body,
        routing=document.routing,
        index=None if line.index is None else document.index,
        version=None if line.version is None else document.version,
    )
    return format_lines([record]).removesuffix(b"\n")
