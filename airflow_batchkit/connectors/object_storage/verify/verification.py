"""What a verification ends with, for people and for machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_batchkit.connectors.object_storage.verify.findings import Findings

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.verify.declared import OutputHead


@dataclass(slots=True, kw_only=True)
class Verification:
    """What one output turned out to be.

    :param location: where it lies.
    :param head: what its manifest says; None where that cannot be read.
    :param objects: how many were read.
    :param records: lines that could be read.
    :param nbytes: of the objects, compressed, as the manifest names them.
    :param ids: whether ids that come twice were looked for.
    :param changed: older versions of documents that changed while they were exported; they are allowed.
    :param letters: dead letters that were read; None where nobody said where they are.
    :param problems: what makes the output unfit for use.
    :param warnings: what is worth knowing.
    :param seconds: how long it took.
    """

    location: str
    head: OutputHead | None = None
    objects: int = 0
    records: int = 0
    nbytes: int = 0
    ids: bool = False
    changed: int = 0
    letters: int | None = None
    problems: Findings = field(default_factory=Findings)
    warnings: Findings = field(default_factory=Findings)
    seconds: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether the output is what was published, and all of it."""
        return not self.problems

    def lines(self) -> Iterator[str]:
        """Give the report for people, the verdict first."""
        verdict = "whole" if self.whole else f"DAMAGED, {self.problems.total:,} problems"
        yield f"{self.location} is {verdict}"
        yield from (f"problem: {line}" for line in self.problems.lines())
        yield from (f"warning: {line}" for line in self.warnings.lines())
        rate = self.records / self.seconds if self.seconds else 0.0
        yield (
            f"read {self.records:,} records in {self.objects:,} objects, {self.nbytes:,} bytes, "
            f"in {self.seconds:,.1f} s ({rate:,.0f} records/s)"
        )
        yield "no id comes twice" if self.ids and self.whole else _IDS[self.ids]
        if self.changed:
            yield (
                f"{self.changed:,} older versions of documents that changed during the export are there "
                "besides the newer: that is allowed"
            )
        if self.head is not None:
            yield from _of_head(self.head, self.letters)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        head = self.head
        return {
            "location": self.location,
            "whole": self.whole,
            "job": head and head.job,
            "run": head and head.run,
            "generation": head and head.generation,
            "created_at": head and head.created_at,
            "snapshots": head and head.snapshots,
            "counts": head and head.counts,
            "objects": self.objects,
            "records": self.records,
            "bytes": self.nbytes,
            "ids_checked": self.ids,
            "changed": self.changed,
            "dead_letters_read": self.letters,
            "problems": self.problems.to_dict(),
            "warnings": self.warnings.to_dict(),
            "seconds": round(self.seconds, 3),
        }


_IDS = {True: "ids were looked at", False: "ids that come twice were not looked for"}


def _of_head(head: OutputHead, letters: int | None) -> Iterator[str]:
    yield f"published by run {head.run} of {head.job} at {head.created_at} (generation {head.generation})"
    if head.snapshots > 1:
        yield f"the export spans {head.snapshots:,} snapshots of its source"
    count = head.dead_letters.get("count", 0)
    if count:
        read = "not read: add --dead-letters URL" if letters is None else f"{letters:,} read"
        yield f"{count:,} records were dead-lettered to {head.dead_letters.get('place')} ({read})"
