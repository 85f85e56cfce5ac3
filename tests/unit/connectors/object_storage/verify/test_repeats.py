"""Hashes that come more than once are found, in memory and on disk, and no others."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.object_storage.verify import repeats as module
from airflow_batchkit.connectors.object_storage.verify.repeats import Repeats
from airflow_batchkit.engine.exceptions import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=[(2**20, 2**20), (100, 3)], ids=["in memory", "on disk, in many parts"])
def repeats(request: pytest.FixtureRequest) -> Iterator[Repeats]:
    """Give one that needs no file, or one that writes after each hundred and looks at three at a time."""
    in_memory, at_once = request.param
    repeats = Repeats(in_memory=in_memory, at_once=at_once)
    yield repeats
    repeats.close()


def test_finds_what_comes_again(repeats: Repeats) -> None:
    """Negative numbers and neighbours too; each with how often it came."""
    draw = random.Random(1)
    distinct = list({draw.getrandbits(64) - 2**63 for _ in range(20_000)})
    again = {value: 2 + number % 3 for number, value in enumerate(distinct[:50])}
    hashes = distinct + [value for value, times in again.items() for _ in range(times - 1)]
    draw.shuffle(hashes)

    for start in range(0, len(hashes), 333):
        repeats.add(hashes[start : start + 333])

    assert dict(repeats.repeated()) == again


def test_finds_nothing_where_nothing_came(repeats: Repeats) -> None:
    """Nothing, or one of everything, repeats nothing."""
    assert list(repeats.repeated()) == []
    repeats.add(range(-5_000, 5_000))
    assert list(repeats.repeated()) == []


def test_full_disk_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary folder that takes no more says how much is needed and what to do."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, which Linux has")
    monkeypatch.setattr(module, "TemporaryFile", lambda: Path("/dev/full").open("r+b"))  # noqa: SIM115  # closed below
    repeats = Repeats(in_memory=10)

    with pytest.raises(PermanentError, match=f"{tempfile.gettempdir()} .*No space left.*set TMPDIR"):
        repeats.add(range(10))
    repeats.close()
