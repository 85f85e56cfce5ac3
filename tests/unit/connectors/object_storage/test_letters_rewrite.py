"""Taking letters out of a set, in two steps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.letters.place import LetterSet
from airflow_batchkit.connectors.letters.purge import purge
from airflow_batchkit.connectors.object_storage.letters_files import find_sets, read_lines
from airflow_batchkit.connectors.object_storage.letters_place import ObjectLetters
from airflow_batchkit.connectors.object_storage.letters_rewrite import LetterRewrite, prepared_changes
from airflow_batchkit.engine.exceptions import (
    CannotResumeError,
    PermanentError,
    SupersededError,
    TargetHeldError,
)
from tests.support.object_storage import Place, S3Connections
from tests.support.replay_sweep import World

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_batchkit.connectors.object_storage.store import ObjectStore

EVEN = [str(number) for number in range(0, 24, 2)]
OWNER = "letters/dag.export/_batchkit/owner.json"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Publish an output that lacks every other order."""
    place = Place(url=f"file://{tmp_path}/out", connections=S3Connections(endpoint_url=""))
    world = World(place, tmp_path, "world")
    world.export()
    return world


@pytest.fixture
def store(world: World) -> ObjectStore:
    """Open the place of the letters."""
    return world.place.below("letters").store()


def only_set(store: ObjectStore) -> LetterSet:
    """Return the one set of the place."""
    (found,) = find_sets(store)
    return found


def ids(store: ObjectStore) -> list[str]:
    """Return the ids of the letters that a reader finds."""
    return [line.letter.id for line in read_lines(store, only_set(store))]


def without(store: ObjectStore, found: LetterSet, *out: str) -> list[bytes]:
    """Return the lines of a set but for some letters."""
    return [line.raw for line in read_lines(store, found) if line.letter.id not in out]


def test_what_is_prepared_is_seen_once_it_is_applied(world: World, store: ObjectStore) -> None:
    """Before, readers find the set as it was; after, what stays and what was added, and no old object."""
    found = only_set(store)
    before = next(iter(read_lines(store, found))).raw
    rewrite = LetterRewrite(store, found, name="0a0a0a0a")

    rewrite.prepare([*without(store, found, *EVEN[3:]), before])
    assert ids(store) == EVEN
    rewrite.apply()
    rewrite.apply()  # a second time: a leg was killed behind the first

    assert ids(store) == ["0", "2", "4", "0"]
    assert only_set(store).revision == 1
    letters = [name for name in world.place.names() if name.startswith("letters/dag.export/run-1/")]
    assert len([name for name in letters if name.endswith(".ndjson")]) == 1
    assert not [name for name in letters if "next" in name]


def test_what_is_discarded_leaves_nothing(world: World, store: ObjectStore) -> None:
    """A change that is forgotten leaves the set, and the place, as they were."""
    names = world.place.names()
    rewrite = LetterRewrite(store, only_set(store), name="0a0a0a0a")
    rewrite.prepare([])
    assert prepared_changes(store, only_set(store).name) == ["0a0a0a0a"]

    rewrite.discard()

    assert (ids(store), world.place.names()) == (EVEN, names)


def test_a_change_that_comes_too_late_changes_nothing(store: ObjectStore) -> None:
    """Of two changes that were prepared, one is applied; the other one's leg is told so."""
    found = only_set(store)
    first, second = (LetterRewrite(store, found, name=name) for name in ("0a0a0a0a", "0b0b0b0b"))
    first.prepare(without(store, found, "0"))
    second.prepare(without(store, found, "2"))

    first.apply()
    with pytest.raises(SupersededError, match="have changed"):
        second.apply()
    with pytest.raises(CannotResumeError, match="have changed"):
        second.prepare(without(store, found, "2"))

    assert ids(store) == EVEN[1:]


def test_forgetting_one_change_leaves_another(store: ObjectStore) -> None:
    """What a second change has prepared is whole, and can be applied, after the first was discarded."""
    found = only_set(store)
    first, second = (LetterRewrite(store, found, name=name) for name in ("0a0a0a0a", "0b0b0b0b"))
    first.prepare(without(store, found, "0"))
    second.prepare(without(store, found, "2"))

    first.discard()
    second.apply()

    assert ids(store) == ["0", *EVEN[2:]]


def test_a_purge_removes_what_is_old(store: ObjectStore) -> None:
    """Letters from before the time go, the others stay; how many went is said."""
    lines = list(read_lines(store, only_set(store)))
    middle = lines[6].letter.at
    younger = [line.letter.id for line in lines if line.letter.at >= middle]

    assert purge(ObjectLetters(store), only_set(store), before=0.0) == 0
    assert purge(ObjectLetters(store), only_set(store), before=middle) == len(lines) - len(younger)
    assert ids(store) == younger


def test_a_purge_of_all_leaves_no_set(world: World, store: ObjectStore) -> None:
    """Nothing of the run is left but the owner's record."""
    assert purge(ObjectLetters(store), only_set(store), before=None) == 12

    assert list(find_sets(store)) == []
    assert [name for name in world.place.names() if name.startswith("letters/dag.export/")] == [OWNER]


def test_a_purge_waits_for_a_replay(world: World, store: ObjectStore) -> None:
    """While a replay is at work, or was cut off at its end, no letter is purged."""
    LetterRewrite(store, only_set(store), name="0a0a0a0a").prepare([])
    with pytest.raises(PermanentError, match="was cut off"):
        purge(ObjectLetters(store), only_set(store), before=1.0)

    record = json.loads(world.place.content(OWNER))
    held = {**record, "run": "replay-1", "lease_until": 4e9, "released": False}
    world.place.store().put(OWNER, json.dumps(held).encode())
    with pytest.raises(TargetHeldError, match="run replay-1"):
        purge(ObjectLetters(store), only_set(store), before=None)
    assert ids(store) == EVEN
