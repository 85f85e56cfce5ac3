"""Which staged batches count, over any number of legs, and in which order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from airflow_batchkit.connectors import patience
from airflow_batchkit.connectors.object_storage.file_store import FileStore
from airflow_batchkit.connectors.object_storage.staging import Staging
from airflow_batchkit.connectors.object_storage.store import Head
from airflow_batchkit.engine.checkpoint import Frontier, PartitionProgress
from airflow_batchkit.engine.exceptions import PermanentError, TransientError
from airflow_batchkit.engine.sink import BatchKey, Inherited
from tests.support.object_storage import FINISHED, Place, after_batch, inherited, leg, make_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_batchkit.connectors.object_storage.store import ObjectStore


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty folder."""
    return make_place("file", request)


@pytest.fixture
def store(place: Place) -> Iterator[ObjectStore]:
    """Give the folder, opened."""
    store = place.store()
    yield store
    store.close()


def started(
    store: ObjectStore, token: str, before: Inherited | None = None, *, run: str = "run-1", stem: str = "part"
) -> Staging:
    """Make a leg's staging and begin it."""
    staging = Staging(
        store,
        leg(token, run=run, inherited=before),
        root="",
        stem=stem,
        extension=".ndjson",
        component="sink",
    )
    staging.start(other_runs=True)
    return staging


def put(staging: Staging, *numbers: int, partition: int = 0) -> None:
    """Stage batches."""
    for number in numbers:
        staging.put(BatchKey(partition=partition, number=number), b"x" * number, records=1, sha256="s")


def counted(staging: Staging, frontier: Frontier) -> list[tuple[int, int, int]]:
    """Return (partition, leg, number) of what counts."""
    links, complete = staging.chain(frontier)
    assert complete
    return [(part.partition, part.leg, part.number) for part in staging.counting(links)]


def test_first_leg_counts_what_its_frontier_covers(store: ObjectStore) -> None:
    """Batches beyond the line of an unfinished partition do not count; numbers may have gaps."""
    staging = started(store, "1")
    put(staging, 1, 3, 4)
    put(staging, 1, partition=1)
    assert counted(staging, after_batch(3)) == [(0, 0, 1), (0, 0, 3)]
    assert counted(staging, Frontier(2)) == [(0, 0, 1), (0, 0, 3), (0, 0, 4), (1, 0, 1)]


def test_each_leg_counts_as_far_as_the_next_one_took_over(store: ObjectStore) -> None:
    """Over three legs the order is partition, then leg, then number; what was done again counts once."""
    first = started(store, "1")
    put(first, 1, 2, 3)
    second = started(store, "2", inherited("1", after_batch(2)))
    put(second, 1, 2)
    put(second, 1, partition=1)
    line = Frontier(2, (PartitionProgress(0, {}, 1), PartitionProgress(1, {}, 0)))
    third = started(store, "3", inherited("2", line))
    put(third, 1, 2)
    put(third, 1, partition=1)
    assert counted(third, Frontier(2)) == [(0, 0, 1), (0, 0, 2), (0, 1, 1), (0, 2, 1), (0, 2, 2), (1, 2, 1)]


def test_many_numbers_stay_in_order(store: ObjectStore) -> None:
    """The tenth comes behind the ninth."""
    staging = started(store, "1")
    put(staging, *range(11, 0, -1))
    assert [number for _, _, number in counted(staging, FINISHED)] == list(range(1, 12))


def test_chain_that_is_cut_is_told(store: ObjectStore) -> None:
    """Where a leg's folder is gone the chain is not complete; what is left is still named."""
    first = started(store, "1")
    put(first, 1)
    second = started(store, "2", inherited("1", after_batch(1)))
    store.delete([f"_batchkit/run-1/{'1' * 16}/leg.json"])
    links, complete = second.chain(FINISHED)
    assert not complete
    assert [link.token[0] for link in links] == ["2", "1"]


def test_only_what_does_not_count_is_removed_before_copying(store: ObjectStore) -> None:
    """Uncommitted batches and folders outside the chain go; what counts stays, a newer leg too."""
    stray = started(store, "9", run="run-0")
    put(stray, 1)
    first = started(store, "1")
    put(first, 1, 2, 3)
    second = started(store, "2", inherited("1", after_batch(2)))
    put(second, 1)
    newer = started(store, "3", inherited("2", after_batch(1)))
    put(newer, 1)
    links, _ = second.chain(after_batch(1))
    second.remove_uncounted(links)
    folder = "_batchkit/run-1/"
    assert list(store.keys("")) == [
        *(
            f"{folder}{'1' * 16}/{name}"
            for name in ("leg.json", "part-00000-0000001.ndjson", "part-00000-0000002.ndjson")
        ),
        *(f"{folder}{'2' * 16}/{name}" for name in ("leg.json", "part-00000-0000001.ndjson")),
        *(f"{folder}{'3' * 16}/{name}" for name in ("leg.json", "part-00000-0000001.ndjson")),
    ]


def test_all_older_staging_is_removed_in_the_end(store: ObjectStore, place: Place) -> None:
    """Staging of older legs and runs goes, with its folders; that of a newer leg is not touched."""
    put(started(store, "9", run="run-0"), 1)
    put(started(store, "1"), 1)
    second = started(store, "2", inherited("1", after_batch(1)))
    put(second, 1)
    started(store, "3", inherited("2", after_batch(1)))
    second.remove_all()
    second.remove_all()
    assert place.names() == [f"_batchkit/run-1/{'3' * 16}/leg.json"]


def test_other_stems_are_not_mixed(store: ObjectStore) -> None:
    """Only objects of the staging's own name are listed."""
    staging = started(store, "1")
    put(staging, 1)
    store.put(f"_batchkit/run-1/{'1' * 16}/part-notes.txt", b"")
    assert counted(staging, FINISHED) == [(0, 0, 1)]


@pytest.mark.parametrize("damage", ["no metadata", "other size"])
def test_staged_object_that_changed_is_refused(store: ObjectStore, damage: str) -> None:
    """A store that drops metadata, or an object that somebody cut, is found before anything is published."""
    staging = started(store, "1")
    put(staging, 5)
    key = staging.key(BatchKey(partition=0, number=5))
    assert staging.size(key).nbytes == 5
    metadata = dict(store.head(key).metadata)
    store.put(key, b"xx", metadata=metadata if damage == "other size" else {})
    with pytest.raises(PermanentError, match=r"bytes, but 5|lost its metadata"):
        staging.size(key)


@pytest.mark.parametrize("wrong_answers", [0, 1, 2])
def test_staged_object_is_known_by_its_own_name(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, wrong_answers: int
) -> None:
    """An answer about another object is noticed and asked for again; the second such answer is refused."""
    staging = started(store, "1")
    put(staging, 5)
    key = staging.key(BatchKey(partition=0, number=5))
    right = store.head(key)
    assert right.metadata == {
        "name": f"{'1' * 16}/part-00000-0000005.ndjson",
        "records": "1",
        "bytes": "5",
        "sha256": "s",
    }
    another = replace(right, metadata={**right.metadata, "name": f"{'1' * 16}/part-00000-0000004.ndjson"})
    answers = [*[another] * wrong_answers, right]
    monkeypatch.setattr(store, "head", lambda _: answers.pop(0))
    if wrong_answers == 2:
        with pytest.raises(PermanentError, match="lost its metadata"):
            staging.size(key)
    else:
        assert staging.size(key).records == 1


def test_a_link_of_another_leg_is_not_followed(
    store: ObjectStore, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came for one leg's link and is about another's, or no link at all, is asked for again."""
    monkeypatch.setattr(patience, "_FIRST_WAIT", 0.001)
    started(store, "1")
    second = started(store, "2", inherited("1", FINISHED))
    third = started(store, "3", inherited("2", FINISHED))
    link = f"_batchkit/run-1/{'2' * 16}/leg.json"
    for content in (place.content(f"_batchkit/run-1/{'1' * 16}/leg.json"), b"{}", b"<html>"):
        store.put(link, content)
        with pytest.raises(TransientError, match="not about this leg"):
            third.chain(FINISHED)
    second.start(other_runs=True)
    assert third.chain(FINISHED)[1]


def test_an_answer_about_another_object_is_asked_for_twice(store: ObjectStore) -> None:
    """What a staged object holds is believed only where its metadata names it."""
    staging = started(store, "1")
    put(staging, 1, 2)
    first, second = (staging.key(BatchKey(partition=0, number=number)) for number in (1, 2))
    heads = {first: iter([store.head(second), store.head(first)]), second: iter([store.head(first)] * 2)}

    class Confused(FileStore):
        @override
        def head(self, key: str) -> Head:
            return next(heads[key])

    confused = Staging(
        Confused(store.location), leg("1"), root="", stem="part", extension=".ndjson", component="sink"
    )
    assert confused.size(first).nbytes == 1
    with pytest.raises(PermanentError, match="has lost its metadata"):
        confused.size(second)
