"""Equal hashes alone are no proof: only documents that are really there twice are told."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from airflow_batchkit.connectors.object_storage.manifest import Part
from airflow_batchkit.connectors.object_storage.verify.identities import Identities, Suspects
from airflow_batchkit.connectors.object_storage.verify.lines import Line
from airflow_batchkit.engine.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

PART = Part(key="part-a", partition="a", records=3, bytes=1, sha256="0" * 64)


class ClashingIdentities(Identities):
    """Has one hash for all."""

    @override
    def hashes(self, lines: Sequence[Line]) -> list[int]:
        return [1 for _ in lines]


def told(identities: Identities, lines: list[Line]) -> tuple[int, list[str]]:
    """Look through lines twice, as a verification does."""
    visitor = identities.visitor(PART)
    visitor.see(lines)
    visitor.done()
    suspects = Suspects(identities, identities.repeated())
    again = suspects.visitor(PART)
    again.see(lines)
    again.done()
    identities.close()
    return suspects.confirmed()


def test_clash_of_hashes_is_no_repetition() -> None:
    """Three documents with one hash, of which one is there twice: that one is told, and one line too many."""
    lines = [Line(id=name) for name in "abca"]

    assert told(ClashingIdentities(snapshots=1, records=4), lines) == (
        1,
        ["_id 'a' is there 2 times, in part-a"],
    )


def test_versions_count_only_where_there_are_several_snapshots() -> None:
    """One id in two versions is a repetition in an export of one snapshot, and none in one of two."""
    lines = [Line(id="a"), Line(id="a", version=2)]

    assert told(Identities(snapshots=1, records=2), lines)[0] == 1
    assert told(Identities(snapshots=2, records=2), lines) == (0, [])


def test_too_little_room_is_said_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary folder that is too small is wrong usage, with the bytes that are needed."""

    def tiny(_path: object) -> Any:
        return shutil._ntuple_diskusage(total=100, used=0, free=100)

    monkeypatch.setattr(shutil, "disk_usage", tiny)

    with pytest.raises(UsageError, match=r"takes 8,000,000 bytes in .*, which has 100 free: set TMPDIR"):
        Identities(snapshots=1, records=1_000_000)
