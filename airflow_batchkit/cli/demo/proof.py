"""Checks what the demo published with the standard library alone: the product does not judge itself."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True, kw_only=True)
class Proof:
    """What was found in the output.

    :param manifest: the published ``manifest.json``.
    :param exported: ids of the exported orders.
    :param letters: ids of the dead-lettered orders.
    :param example: one dead letter.
    :param objections: what does not hold; empty when everything does.
    """

    manifest: dict[str, Any]
    exported: set[int] = field(default_factory=set)
    letters: set[int] = field(default_factory=set)
    example: dict[str, Any] = field(default_factory=dict)
    objections: list[str] = field(default_factory=list)


def examine(output: Path, dead_letters: Path, *, made: set[int]) -> Proof:
    """Read everything that was published, and compare it with what was made.

    :param output: the folder of the export.
    :param dead_letters: the folder of the dead letters.
    :param made: ids of all orders.
    """
    proof = Proof(manifest=json.loads((output / "manifest.json").read_bytes()))
    _examine_parts(proof, output)
    _examine_letters(proof, dead_letters)
    _reconcile(proof, made)
    return proof


def _examine_parts(proof: Proof, output: Path) -> None:
    listed = set()
    for part in proof.manifest["parts"]:
        file = output / part["key"]
        listed.add(file.name)
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != part["sha256"]:
            proof.objections.append(f"{file.name}: the checksum in the manifest is another")
        ids = [int(json.loads(line)["_id"]) for line in gzip.decompress(content).splitlines()]
        if len(ids) != part["records"]:
            proof.objections.append(
                f"{file.name} holds {len(ids):,} records, the manifest says {part['records']:,}"
            )
        twice = len(ids) - len(set(ids) - proof.exported)
        if twice:
            proof.objections.append(f"{file.name}: {twice:,} orders were exported before")
        proof.exported.update(ids)
    left = sorted(file.name for file in output.rglob("part-*") if file.name not in listed)
    if left:
        proof.objections.append(f"left over from the killed try: {', '.join(left[:3])}")
    if not (output / "_SUCCESS").is_file():
        proof.objections.append("there is no _SUCCESS")


def _examine_letters(proof: Proof, folder: Path) -> None:
    for letter in _lines(folder):
        number = int(letter["id"])
        if number in proof.letters:
            proof.objections.append(f"order {number} was dead-lettered twice")
        proof.letters.add(number)
        proof.example = proof.example or letter


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.rglob("letters-*")):
        content = file.read_bytes()
        text = gzip.decompress(content) if file.suffix == ".gz" else content
        for line in text.splitlines():
            yield json.loads(line)


def _reconcile(proof: Proof, made: set[int]) -> None:
    both = proof.exported & proof.letters
    lost = made - proof.exported - proof.letters
    strange = (proof.exported | proof.letters) - made
    for what, orders in (
        ("are exported and dead-lettered", both),
        ("are lost", lost),
        ("were never made", strange),
    ):
        if orders:
            proof.objections.append(f"{len(orders):,} orders {what}, one of them {min(orders)}")
