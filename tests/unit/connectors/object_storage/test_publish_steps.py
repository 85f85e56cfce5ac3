"""What each step of a publication is for: what happens where somebody comes in between."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pytest

from airflow_batchkit.connectors.object_storage import final
from airflow_batchkit.connectors.object_storage.store import MissingObjectError
from airflow_batchkit.engine.checkpoint import Frontier
from airflow_batchkit.engine.exceptions import (
    CannotResumeError,
    PermanentError,
    SupersededError,
    TransientError,
)
from airflow_batchkit.engine.failpoints import probing
from tests.support.object_storage import Place, after_batch, inherited, leg, make_place, publication, write

if TYPE_CHECKING:
    from airflow_batchkit.engine.sink import OpenSink


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty folder."""
    return make_place("file", request)


@pytest.fixture
def sink(place: Place) -> OpenSink:
    """Give a sink whose run has written three batches."""
    sink = place.sink()
    sink.start(leg("1"))
    for number in (1, 2, 3):
        write(sink, number, [number])
    return sink


def test_newer_leg_that_has_cleaned_up_is_named(sink: OpenSink, place: Place) -> None:
    """Staged parts that a newer leg removed, because it has published them, do not ask for a restart."""
    newer = place.sink()
    begun: list[str] = []

    def publish_first(name: str, when: Literal["before", "after"]) -> None:
        if (name, when) == ("sink.copy", "before") and not begun:
            begun.append(name)
            newer.start(leg("2", inherited=inherited("1", after_batch(3))))
            newer.publish(publication(3))

    with probing(publish_first), pytest.raises(SupersededError, match=r"owned by leg 2+"):
        sink.publish(publication(3))
    assert place.ids() == ["1", "2", "3"]


def test_leg_that_is_superseded_while_it_copies_does_not_switch(sink: OpenSink, place: Place) -> None:
    """The ownership is asked for once more, at the place itself, before the output becomes visible."""
    newer = place.sink()
    begun: list[str] = []

    def take_over(name: str, when: Literal["before", "after"]) -> None:
        if (name, when) == ("sink.copy", "after") and not begun:
            begun.append(name)
            newer.start(leg("2", inherited=inherited("1", after_batch(3))))

    with probing(take_over), pytest.raises(SupersededError, match=r"owned by leg 2+"):
        sink.publish(publication(3))
    assert "manifest.json" not in place.names()


@pytest.mark.usefixtures("sink")
def test_chain_that_is_cut_after_the_start_is_not_published(place: Place) -> None:
    """Where the link to earlier legs is gone, nobody knows what is missing: the run has to be restarted."""
    second = place.sink()
    second.start(leg("2", inherited=inherited("1", after_batch(3))))
    write(second, 1, [4])
    place.store().delete([f"_batchkit/run-1/{'1' * 16}/leg.json"])
    with pytest.raises(CannotResumeError, match="restart the run"):
        second.publish(publication(4))
    assert "manifest.json" not in place.names()


@pytest.mark.usefixtures("sink")
def test_what_does_not_count_is_gone_before_the_first_copy(place: Place) -> None:
    """A leg that sleeps through its own succession finds nothing to copy that the newer one does not copy."""
    second = place.sink()
    second.start(leg("2", inherited=inherited("1", after_batch(2))))
    write(second, 1, ["three again"])
    staged: list[list[str]] = []

    def look(name: str, when: Literal["before", "after"]) -> None:
        if (name, when) == ("sink.copy", "before"):
            staged.append([key for key in place.names() if f"{'1' * 16}/part-" in key])

    with probing(look):
        second.publish(publication(3))
    assert [name[-17:-10] for name in staged[0]] == ["0000001", "0000002"]


def test_long_publication_keeps_its_lease(
    sink: OpenSink, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While parts are copied the lease is renewed when it is due, so that no other run takes the output."""
    began = place.store().now()
    copied: list[str] = []
    monkeypatch.setattr("time.time", lambda: began + 50 * len(copied))
    renewed: list[int] = []

    def note(name: str, when: Literal["before", "after"]) -> None:
        if (name, when) == ("sink.copy", "after"):
            copied.append(name)
        elif (name, when) == ("sink.renew", "after"):
            renewed.append(len(copied))

    with probing(note):
        sink.publish(publication(3))
    assert renewed


def test_manifest_says_where_and_how(sink: OpenSink, place: Place) -> None:
    """Location, compression, and whether the store could be asked to refuse a second writer."""
    published = sink.publish(publication(3))
    manifest = place.manifest()
    assert (manifest["location"], manifest["compression"]) == (place.url, "gzip")
    assert manifest["conditional_writes"] is True
    assert manifest["counts"]["written"] == 3
    assert manifest["fingerprints"] == {"source": "test"}
    assert (published["location"], published["manifest"]) == (place.url, f"{place.url}/manifest.json")
    assert (published["records"], published["bytes"]) == (3, sum(part["bytes"] for part in manifest["parts"]))


def test_output_whose_owner_record_is_lost_leaves_no_stale_parts(sink: OpenSink, place: Place) -> None:
    """Who takes an output over on purpose, by removing its owner record, still replaces it."""
    sink.publish(publication(3))
    sink.release()
    place.store().delete(["_batchkit/owner.json"])
    later = place.sink()
    later.start(leg("2", run="run-2", generation="0b0b0b0b"))
    write(later, 1, ["one"])
    later.publish(publication(1))
    parts = [name for name in place.names() if name.startswith("part-")]
    assert parts == ["part-only-00001-0b0b0b0b.ndjson.gz"]


def test_success_is_empty_and_nothing_is_left_to_tidy(sink: OpenSink, place: Place) -> None:
    """After the publication the next owner of the output has no older generations to look for."""
    sink.publish(publication(3))
    sink.release()
    assert place.content("_SUCCESS") == b""
    later = place.sink()
    later.start(leg("2", run="run-2", generation="0b0b0b0b"))
    write(later, 1, ["one"])
    later.publish(publication(1))
    later.release()
    assert json.loads(place.content("_batchkit/owner.json"))["untidy"] == []


def test_nothing_is_tidied_by_another_runs_manifest(sink: OpenSink, place: Place) -> None:
    """Where another output has become visible in the meantime, what it does not name is not removed."""
    other = place.below("other").sink()
    other.start(leg("9", run="run-0", generation="00000000"))
    write(other, 1, ["theirs"])
    other.publish(publication(1))

    def replace(name: str, when: Literal["before", "after"]) -> None:
        if (name, when) == ("sink.success", "before"):
            place.store().put("manifest.json", place.below("other").content("manifest.json"))

    with probing(replace), pytest.raises(TransientError):
        sink.publish(publication(3))
    assert [name for name in place.names() if name.startswith("part-")] == [
        f"part-only-{number:05d}-0a0a0a0a.ndjson.gz" for number in (1, 2, 3)
    ]


def test_folders_of_others_are_not_tidied(sink: OpenSink, place: Place) -> None:
    """What lies in a folder below the output is not ours, however its name begins and ends."""
    foreign = "part-of/something-00001-0a0a0a0a.ndjson.gz"
    sink.publish(publication(3))
    sink.release()
    place.store().put(foreign, b"")
    later = place.sink()
    later.start(leg("2", run="run-2", generation="0b0b0b0b"))
    write(later, 1, ["one"])
    later.publish(publication(1))
    assert foreign in place.names()


@pytest.mark.parametrize("wrong", ["missing", "short", "another"])
def test_copy_that_is_not_there_is_made_again(
    sink: OpenSink, place: Place, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """A store that says yes without doing it, or answers for another object, is not taken at its word."""
    store = sink._store  # type: ignore[attr-defined]  # the protocol does not show it
    look, copy = store.head, store.copy
    looked: list[str] = []
    copied: list[str] = []

    def first_look_is_wrong(key: str) -> Any:
        head = look(key)
        if not key.startswith("part-") or looked:
            return head
        looked.append(key)
        if wrong == "missing":
            raise MissingObjectError(key)
        return replace(head, size=0) if wrong == "short" else replace(head, metadata={"name": "x"})

    def note(source: str, target: str) -> None:
        copied.append(target)
        copy(source, target)

    monkeypatch.setattr(store, "head", first_look_is_wrong)
    monkeypatch.setattr(store, "copy", note)
    sink.publish(publication(3))
    assert len(copied) == 4
    assert set(copied) == {part["key"] for part in place.manifest()["parts"]}


def test_more_parts_than_their_names_can_count_are_refused(
    sink: OpenSink, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all legs together, per partition; up to there they are published."""
    monkeypatch.setattr(final, "MAX_PARTS", 2)
    with pytest.raises(PermanentError, match=r"raise BatchPolicy\.max_bytes"):
        sink.publish(publication(3))
    assert "manifest.json" not in place.names()
    monkeypatch.setattr(final, "MAX_PARTS", 3)
    assert sink.publish(publication(3))["parts"] == 3


def test_each_partitions_parts_are_numbered_from_one(place: Place) -> None:
    """Without gaps, whatever numbers the batches had, also where the first partition has none."""
    sink = place.sink()
    sink.start(leg("1", partitions=("none", "some", "more")))
    for partition, number in ((1, 2), (1, 5), (2, 3)):
        write(sink, number, [f"{partition}.{number}"], partition=partition)
    sink.publish(publication(3, Frontier(3)))
    assert [part["key"].removesuffix("-0a0a0a0a.ndjson.gz") for part in place.manifest()["parts"]] == [
        "part-some-00001",
        "part-some-00002",
        "part-more-00001",
    ]
    assert place.ids() == ["1.2", "1.5", "2.3"]
