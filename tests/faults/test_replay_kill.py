"""SIGKILL at every side effect of dead letters: each record is published once, or is still a letter."""

from __future__ import annotations

import dataclasses
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fault_table import FULL
from tests.support.object_storage import Place, make_place

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.replay_sweep import Then

ORDERS = {str(number): {"number": str(number), "amount": 1.5} for number in range(24)}


@dataclass(frozen=True)
class Kind:
    """One kind of place for letters, beside an output.

    :param output: where the output lies, and the letters unless it is said otherwise.
    :param every: each so-manieth moment is swept, replay and other replay and export, unless all are.
    :param letters: where the letters lie, as :func:`tests.support.replay_sweep.box_of` takes it.
    """

    output: Place
    every: Mapping[Then, int]
    letters: Mapping[str, Any] = field(default_factory=dict)


@pytest.fixture(
    params=[
        pytest.param("file", marks=pytest.mark.fault("replay-killed", at="file")),
        pytest.param("s3", marks=[pytest.mark.s3, pytest.mark.fault("replay-killed", at="s3")]),
        pytest.param(
            "elasticsearch",
            marks=[pytest.mark.elasticsearch, pytest.mark.fault("replay-killed", at="elasticsearch")],
        ),
        pytest.param(
            "postgres", marks=[pytest.mark.postgres, pytest.mark.fault("replay-killed", at="postgres")]
        ),
    ]
)
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    """Give an empty place of each kind."""
    output = make_place("s3" if request.param == "s3" else "file", request)
    if request.param == "elasticsearch":
        server = request.getfixturevalue("elasticsearch_server")
        index = f"letters-{secrets.token_hex(4)}"
        yield Kind(output, {"same": 17, "other": 31, "export": 13}, {"url": server.url, "index": index})
        for found in server.request("GET", f"/{index}-*"):
            server.request("DELETE", f"/{found}")
    elif request.param == "postgres":
        server = request.getfixturevalue("postgres_server")
        endpoint = dataclasses.asdict(server.endpoint(request.getfixturevalue("database")))
        yield Kind(
            output, {"same": 7, "other": 13, "export": 7}, {"endpoint": endpoint, "table": "dead letters"}
        )
    else:
        # On S3 each third point, before and after in turn: three processes per point take their time.
        every = 3 if request.param == "s3" else 1
        yield Kind(output, {"same": every, "other": 3, "export": 5 * every})


def sweep(kind: Kind, folder: Path, then: Then) -> list[dict[str, Any]]:
    """Run the sweep in a process of its own and return its lines."""
    settings: dict[str, Any] = {
        "url": kind.output.url,
        "connections": asdict(kind.output.connections),
        "letters": kind.letters,
        "folder": str(folder),
        "then": then,
        "every": 1 if FULL else kind.every[then],
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.replay_sweep", folder / "settings.json"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(lines: list[dict[str, Any]], given_up: Mapping[str, int], counts: Mapping[str, int]) -> None:
    """Compare what is there after each point with what an uninterrupted run leaves.

    :param given_up: which orders are letters in the end, and how often each was replayed.
    :param counts: of the output.
    """
    reference, *points = lines
    wanted = reference["picture"]
    assert wanted["whole"]
    assert wanted["counts"] == counts
    assert wanted["letters"] == sorted([name, times] for name, times in given_up.items())
    assert wanted["records"] == sorted((ORDERS[name] for name in given_up), key=json.dumps)
    assert wanted["leftovers"] == []
    assert len(wanted["lines"]) == counts["written"]
    for line in map(json.loads, wanted["lines"]):
        name = line.pop("_id")
        assert name not in given_up
        assert line == ORDERS[name]
    for point in points:
        assert point["picture"] == wanted, point["point"]
    assert points
    assert all(point["killed"] for point in points)


REPLAYED = {"read": 24, "filtered": 1, "written": 20, "dead_lettered": 3}
AGAIN = {"0": 1, "8": 1, "16": 1}


@pytest.mark.timeout(900)
def test_a_killed_export_goes_on_with_its_letters(kind: Kind, tmp_path: Path) -> None:
    """Killed before or after any effect and run again: each letter once, and nothing that nobody needs."""
    lines = sweep(kind, tmp_path, "export")
    moments = lines[0]["moments"]
    for name in ("dead_letters.start", "dead_letters.put", "dead_letters.switch", "sink.switch"):
        assert f"before {name}" in moments
    evens = {str(number): 0 for number in range(0, 24, 2)}
    check(lines, evens, {"read": 24, "filtered": 0, "written": 12, "dead_lettered": 12})


@pytest.mark.timeout(900)
def test_a_killed_replay_goes_on(kind: Kind, tmp_path: Path) -> None:
    """Killed before or after any effect and run again: as if nothing had been, with nothing left over."""
    lines = sweep(kind, tmp_path, "same")
    moments = lines[0]["moments"]
    for name in ("sink.put", "dead_letters.put", "letters.prepare", "sink.switch", "letters.switch"):
        assert f"before {name}" in moments
    prepared, published, taken_out = (
        moments.index(f"before {name}") for name in ("letters.prepare", "sink.switch", "letters.switch")
    )
    assert prepared < published < taken_out
    check(lines, AGAIN, REPLAYED)


@pytest.mark.timeout(900)
def test_another_replay_ends_what_a_killed_one_began(kind: Kind, tmp_path: Path) -> None:
    """Killed, and a new replay instead of the old one: no record is added twice, no letter is lost."""
    lines = sweep(kind, tmp_path, "other")
    for point in lines[1:]:
        found = point["picture"]
        # Where the first one had published, the other is one more try of what that one gave up again.
        assert {replays for _, replays in found["letters"]} <= {1, 2}, point["point"]
        found["letters"] = [[name, 1] for name, _ in found["letters"]]
        found["leftovers"] = []
    check(lines, AGAIN, REPLAYED)
