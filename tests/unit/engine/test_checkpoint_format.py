"""The stored form of a checkpoint, field by field: other versions of the package read it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from airflow_batchkit.engine.checkpoint import (
    MAX_BYTES,
    Checkpoint,
    Frontier,
    PartitionProgress,
    encode,
)
from airflow_batchkit.engine.exceptions import PermanentError

FIRST: dict[str, Any] = {
    "schema": 1,
    "job": "",
    "run": "r",
    "alias": None,
    "clear_marker": "",
    "mode": "real",
    "status": "running",
    "token": "t",
    "generation": "g",
    "started_at": 1.0,
    "saved_at": 0.0,
    "active_seconds": 0.0,
    "legs": 1,
    "stuck_legs": 0,
    "fingerprints": {},
    "frontier": [0, []],
    "counts": {
        "read": 0,
        "filtered": 0,
        "transformed": 0,
        "produced": 0,
        "written": 0,
        "unchanged": 0,
        "dead_lettered_by_source": 0,
        "dead_lettered_by_transform": 0,
        "dead_lettered_by_sink": 0,
        "skipped": 0,
        "batches": 0,
        "bytes_read": 0,
        "retries": 0,
    },
    "budget": {"read": 0, "dead_lettered": 0, "classes": {}, "warned": 0.0, "exceeded": ""},
    "source": {},
    "sink": {},
    "errors": {},
    "samples": [],
    "classes": {},
    "report": None,
}


def stored(**changes: Any) -> dict[str, Any]:
    """Return what is stored of a checkpoint, without its checksum."""
    made = Checkpoint(run="r", token="t", generation="g", started_at=1.0, **changes)
    value: dict[str, Any] = json.loads(encode(made))["checkpoint"]
    return value


def test_a_runs_first_checkpoint_stands_at_the_beginning_with_nothing_counted() -> None:
    """Whatever is new, renamed or begins with another value changes the format: an older leg must read it."""
    assert stored() == FIRST


def test_open_partitions_are_stored_by_position() -> None:
    """Next partition first, then position, cursor and last batch of each open one, without names."""
    frontier = Frontier(2, (PartitionProgress(0), PartitionProgress(1, {"after": 7}, 3)))
    assert stored(frontier=frontier)["frontier"] == [2, [[0, None, 0], [1, {"after": 7}, 3]]]


def test_four_kilobytes_fit_and_no_byte_more() -> None:
    """The limit is one of what is stored, checksum included."""
    sizes = []
    for number in range(1_200):  # a checksum has nine digits or ten
        job = f"{number % 3}" + "x" * (3_300 + number // 3)
        long = Checkpoint(run="r", job=job, token="t", generation="g", started_at=1.0)
        with suppress(PermanentError):
            sizes.append(len(encode(long)))
    assert max(sizes) == MAX_BYTES == 4096
