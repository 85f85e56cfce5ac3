"""SIGKILL and SIGSTOP at every side effect of a sink: the output is as if nothing had been."""

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


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty place of each kind."""
    return make_place(request.param, request)


def sweep(place: Place, folder: Path, mode: str, *, every: int) -> list[dict[str, Any]]:
    """Run the sweep in a process of its own and return its lines."""
    settings = {
        "url": place.url,
        "connections": asdict(place.connections),
        "folder": str(folder),
        "mode": mode,
        "every": every,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.publish_sweep", folder / "settings.json"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(lines: list[dict[str, Any]], *, run: str) -> None:
    """Compare what lies there after each point with what an uninterrupted run leaves."""
    reference, *points = lines
    wanted = reference["picture"]
    assert len(wanted["ids"]) == 16
    assert len(wanted["letters"]) == (6 if run == "run-1" else 10)
    assert wanted["owner"] == [run, True, []]
    assert not [name for name in wanted["names"] if "_batchkit/" in name and "owner.json" not in name]
    for point in points:
        assert point["picture"] == wanted, point["point"]
    assert sum(point["struck"] for point in points) > len(points) * 0.9


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "place",
    [
        pytest.param("file", marks=pytest.mark.fault("publish-killed", at="file")),
        pytest.param("s3", marks=[pytest.mark.s3, pytest.mark.fault("publish-killed", at="s3")]),
    ],
    indirect=True,
)
def test_killed_at_every_effect(place: Place, tmp_path: Path) -> None:
    """Killed before or after any effect and run again: same objects, same lines, no leftovers."""
    lines = sweep(place, tmp_path, "kill", every=1)
    moments = lines[0]["moments"]
    for name in (
        "claim",
        "start",
        "put",
        "confirm",
        "copy",
        "switch",
        "success",
        "tidy",
        "delete",
        "release",
    ):
        assert f"before sink.{name}" in moments
    check(lines, run="run-1")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "place",
    [
        pytest.param("file", marks=pytest.mark.fault("zombie", at="file")),
        pytest.param("s3", marks=[pytest.mark.s3, pytest.mark.fault("zombie", at="s3")]),
    ],
    indirect=True,
)
@pytest.mark.parametrize(("mode", "run"), [("next run", "run-2"), ("next leg", "run-1")])
def test_frozen_while_publishing(place: Place, tmp_path: Path, mode: str, run: str) -> None:
    """Frozen in any step of publishing, thawed after another has published: what that one published stays."""
    # Each third point, before and after in turn: three processes per point take their time.
    check(sweep(place, tmp_path, mode, every=3), run=run)
