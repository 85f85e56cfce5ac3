"""The demo's judge: it accepts a whole output, and objects to every way in which one can be wrong."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.cli.demo.proof import examine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MADE = {1, 2, 3, 4, 5}


def publish(folder: Path, parts: Sequence[Sequence[int]], letters: Sequence[int] = (5,)) -> None:
    """Write an output and dead letters as a run would."""
    output = folder / "orders"
    output.mkdir()
    listed = []
    for number, ids in enumerate(parts, start=1):
        content = gzip.compress("".join(f'{{"_id": "{n}", "id": {n}}}\n' for n in ids).encode())
        (output / f"part-{number}.gz").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        listed.append(
            {"key": f"part-{number}.gz", "records": len(ids), "bytes": len(content), "sha256": digest}
        )
    (output / "manifest.json").write_text(json.dumps({"parts": listed}))
    (output / "_SUCCESS").touch()
    kept = folder / "dead-letters" / "job" / "run"
    kept.mkdir(parents=True)
    (kept / "letters.json").write_text("{}")
    (kept / "letters-1.ndjson").write_text("".join(f'{{"id": "{n}", "record": {{}}}}\n' for n in letters))


def objections(folder: Path) -> list[str]:
    """Return what the judge says."""
    return examine(folder / "orders", folder / "dead-letters", made=MADE).objections


def test_whole_output_is_accepted(tmp_path: Path) -> None:
    """Every order exported or dead-lettered, once: no objection."""
    publish(tmp_path, [[1, 2], [3, 4]])
    proof = examine(tmp_path / "orders", tmp_path / "dead-letters", made=MADE)
    assert proof.objections == []
    assert (proof.exported, proof.letters) == ({1, 2, 3, 4}, {5})
    assert proof.example["id"] == "5"


@pytest.mark.parametrize(
    ("parts", "letters", "says"),
    [
        ([[1, 2], [3]], [5], "1 orders are lost, one of them 4"),
        ([[1, 2], [2, 3, 4]], [5], "1 orders were exported before"),
        ([[1, 2, 2], [3, 4]], [5], "1 orders were exported before"),
        ([[1, 2, 3, 4]], [5, 5], "order 5 was dead-lettered twice"),
        ([[1, 2, 3, 4, 5]], [5], "1 orders are exported and dead-lettered"),
        ([[1, 2, 3, 4, 9]], [5], "1 orders were never made"),
    ],
)
def test_lost_and_doubled_orders_are_found(
    tmp_path: Path, parts: list[list[int]], letters: list[int], says: str
) -> None:
    """An order that is lost, doubled or strange is told."""
    publish(tmp_path, parts, letters)
    assert any(says in objection for objection in objections(tmp_path))


def test_damage_and_leftovers_are_found(tmp_path: Path) -> None:
    """A wrong checksum, a wrong count, a part of a killed try and a missing _SUCCESS are told."""
    publish(tmp_path, [[1, 2], [3, 4]])
    output = tmp_path / "orders"
    manifest = json.loads((output / "manifest.json").read_text())
    manifest["parts"][0]["sha256"] = "0" * 64
    manifest["parts"][1]["records"] = 7
    (output / "manifest.json").write_text(json.dumps(manifest))
    (output / "part-9.gz").touch()
    (output / "_SUCCESS").unlink()
    said = "\n".join(objections(tmp_path))
    for part in ("checksum", "the manifest says 7", "left over from the killed try: part-9.gz", "_SUCCESS"):
        assert part in said
