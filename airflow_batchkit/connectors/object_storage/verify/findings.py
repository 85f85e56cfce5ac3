"""What a verification found: by kind, each counted, a bounded number of them told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

TOLD = 20

ADVICE = {
    "manifest": "restore manifest.json from a backup or an older version, or export again",
    "counts": "do not load it; export again",
    "missing": "restore the object from a backup or an older version, or export again",
    "bytes": "somebody replaced or damaged it: restore it from a backup or an older version, or export again",
    "compression": "restore the object, or export again",
    "lines": "do not load the object; restore it, or export again",
    "records": "do not load the object; restore it, or export again",
    "repeated": "load it only where a later line replaces an earlier one with the same id, or export again",
    "success": "the run that published was cut off or the marker was removed: run the job again",
    "dead_letters": "look who removed them; they cannot be replayed from there",
    "changed": "it was changed in the index since it was exported, or in the export",
    "gone": "it was deleted from the index since it was exported, or never was in it",
    "count": "documents were added, changed or deleted since, or the query is not that of the export",
    "staged": "a run is at work there, or one died: its next run tidies up",
    "older": "readers that list the prefix see them too; the next run of the job removes what it knows of",
    "foreign": "this package did not write it; readers that list the prefix see it too",
    "moved": "it was copied or moved here, which is fine if you did it",
}


@dataclass(slots=True)
class _Tally:
    count: int = 0
    told: list[str] = field(default_factory=list)


class Findings:
    """Problems, or warnings, of one verification."""

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}

    def add(self, kind: str, text: str) -> None:
        """Note one finding.

        :param kind: a key of :data:`ADVICE`.
        :param text: which object, and what is wrong with it; never what a record holds besides its id.
        """
        tally = self._tallies.setdefault(kind, _Tally())
        tally.count += 1
        if len(tally.told) < TOLD:
            tally.told.append(text)

    def add_untold(self, kind: str, count: int) -> None:
        """Note that there are more of a kind, of which nothing can be told."""
        if count > 0:
            self._tallies.setdefault(kind, _Tally()).count += count

    def __bool__(self) -> bool:
        return bool(self._tallies)

    @property
    def total(self) -> int:
        """How many there are, of all kinds."""
        return sum(tally.count for tally in self._tallies.values())

    def lines(self) -> Iterator[str]:
        """Give one line for each finding that is told, and one for the rest of its kind."""
        for kind, tally in self._tallies.items():
            for text in tally.told:
                yield f"{text}: {ADVICE[kind]}"
            if tally.count > len(tally.told):
                yield f"and {tally.count - len(tally.told):,} more of the same kind ({kind})"

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as JSON types."""
        return {
            kind: {"count": tally.count, "examples": list(tally.told)}
            for kind, tally in self._tallies.items()
        }
