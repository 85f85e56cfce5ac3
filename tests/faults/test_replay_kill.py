"""SIGKILL at every side effect of a replay: each record is published once, or still a letter."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.object_storage import Place, make_place

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty place of each kind."""
    return make_place(request.param, request)


def sweep(place: Place, folder: Path, then: str, *, every: int) -> list[dict[str, Any]]:
    """Run the sweep in a process of its own and return its lines."""
    settings: dict[str, Any] = {
        "url": place.url,
        "connections": asdict(place.connections),
        "folder": str(folder),
        "then": then,
        "every": every,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.replay_sweep", folder / "settings.json"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(lines: list[dict[str, Any]], *, may_try_twice: bool) -> None:
    """Compare what is there after each point with what an uninterrupted replay leaves."""
    reference, *points = lines
    wanted = reference["picture"]
    assert wanted["whole"]
    assert wanted["counts"] == {"read": 24, "filtered": 1, "written": 20, "dead_lettered": 3}
    assert wanted["letters"] == [["0", 1], ["16", 1], ["8", 1]]
    assert [json.loads(line)["_id"] for line in wanted["lines"]] == sorted(
        {str(number) for number in range(24)} - {"0", "2", "8", "16"}
    )
    assert wanted["leftovers"] == []
    for point in points:
        found = point["picture"]
        if may_try_twice:
            # Where the first one had published, the other is one more try of what that one gave up again.
            assert {replays for _, replays in found["letters"]} <= {1, 2}, point["point"]
            found["letters"] = [[name, 1] for name, _ in found["letters"]]
            found["leftovers"] = []
        assert found == wanted, point["point"]
    assert all(point["killed"] for point in points)


@pytest.mark.timeout(600)
def test_a_killed_replay_goes_on(place: Place, tmp_path: Path) -> None:
    """Killed before or after any effect and run again: as if nothing had been, with nothing left over."""
    # On S3 each third point, before and after in turn: three processes per point take their time.
    lines = sweep(place, tmp_path, "same", every=3 if place.url.startswith("s3") else 1)
    moments = lines[0]["moments"]
    for name in ("sink.put", "dead_letters.put", "letters.prepare", "sink.switch", "letters.switch"):
        assert f"before {name}" in moments
    prepared, published, taken_out = (
        moments.index(f"before {name}") for name in ("letters.prepare", "sink.switch", "letters.switch")
    )
    assert prepared < published < taken_out
    check(lines, may_try_twice=False)


@pytest.mark.timeout(600)
def test_another_replay_ends_what_a_killed_one_began(place: Place, tmp_path: Path) -> None:
    """Killed, and a new replay instead of the old one: no record is added twice, no letter is lost."""
    check(sweep(place, tmp_path, "other", every=3), may_try_twice=True)
