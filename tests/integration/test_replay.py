"""Dead letters from the export to the replay, on files and on S3: every record once, byte for byte."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.object_storage import Place, make_place
from tests.support.replay_sweep import ORDERS, World

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty place of each kind."""
    return make_place(request.param, request)


def refuse_eights(order: dict[str, Any]) -> dict[str, Any]:
    """Give up every eighth order still."""
    if int(order["number"]) % 8 == 0:
        raise ValueError("an order by eights")
    return order


def test_a_fixed_transform_completes_the_output(place: Place, tmp_path: Path) -> None:
    """Two replays later the output is whole, holds each record once, and no letter is left."""
    world = World(place, tmp_path, "world")
    report = world.export()
    assert (report["counts"]["written"], report["dead_letters"]["count"]) == (ORDERS // 2, ORDERS // 2)

    first = world.replay("replay-1", refuse_eights)
    assert (first["counts"]["written"], first["dead_letters"]["count"]) == (9, 3)
    picture = world.picture()
    assert picture["whole"]
    assert picture["letters"] == [["0", 1], ["16", 1], ["8", 1]]
    assert picture["counts"] == {"read": 24, "filtered": 0, "written": 21, "dead_lettered": 3}

    world.replay("replay-2", None)
    picture = world.picture()
    assert picture["whole"]
    assert (picture["letters"], picture["leftovers"]) == ([], [])
    assert picture["lines"] == sorted(
        f'{{"_id":"{number}","number":"{number}","amount":1.5}}' for number in range(ORDERS)
    )
    assert picture["counts"] == {"read": 24, "filtered": 0, "written": 24, "dead_lettered": 0}


def test_the_next_run_replaces_what_a_replay_added(place: Place, tmp_path: Path) -> None:
    """A later run of the job leaves nothing of an extended output behind."""
    world = World(place, tmp_path, "world")
    world.export()
    world.replay("replay-1", None)

    world.export(run="run-2")

    data = world.place.below("data")
    listed = {part["key"] for part in data.manifest()["parts"]}
    assert {name for name in data.names() if name.startswith("part-")} == listed
    assert len(data.ids()) == ORDERS // 2


def test_the_manifest_says_what_was_replayed(place: Place, tmp_path: Path) -> None:
    """Generation, run and everything else that the manifest said stay; the replay and its time are named."""
    world = World(place, tmp_path, "world")
    world.export()
    before = world.place.below("data").manifest()

    world.replay("replay-1", None)

    after = world.place.below("data").manifest()
    added = {part["partition"] for part in after["parts"]} - {part["partition"] for part in before["parts"]}
    assert added == {after["replayed"]}
    assert after["replayed_at"]
    changed = {"parts", "total", "counts", "dead_letters", "replayed", "replayed_at"}
    assert {name: before[name] for name in before if name not in changed} == {
        name: after[name] for name in after if name not in changed
    }
    assert json.dumps(after["parts"]).startswith(json.dumps(before["parts"])[:-1])
