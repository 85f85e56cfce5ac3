"""Publishing stops where it is asked to, refuses what does not add up, and can always be called again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import pytest

from airflow_batchkit.engine.exceptions import (
    PermanentError,
    ReconciliationError,
    StoppedError,
    SupersededError,
    TransientError,
)
from airflow_batchkit.engine.failpoints import probing
from tests.support.object_storage import (
    FINISHED,
    Place,
    after_batch,
    inherited,
    leg,
    make_place,
    publication,
    write,
)

if TYPE_CHECKING:
    from airflow_batchkit.engine.sink import OpenSink

TIDY = ["_SUCCESS", "_batchkit/owner.json", "manifest.json"]


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


def names(*numbers: int, generation: str = "0a0a0a0a") -> list[str]:
    """Return what lies in the folder after publishing so many parts."""
    return sorted([*TIDY, *(f"part-only-{number:05d}-{generation}.ndjson.gz" for number in numbers)])


def test_counts_that_do_not_add_up_are_not_published(sink: OpenSink, place: Place) -> None:
    """Parts that hold fewer records than were written fail the run, with the difference."""
    with pytest.raises(ReconciliationError, match=r"5 records were written.*hold 3 \(difference \+2\)"):
        sink.publish(publication(5))
    assert "manifest.json" not in place.names()


def test_part_that_somebody_removed_is_found(sink: OpenSink, place: Place) -> None:
    """A staged part that vanishes while it is copied fails the run with the way out."""
    store = place.store()

    def remove(name: str, when: Literal["before", "after"]) -> None:
        if (name, when) == ("sink.copy", "before"):
            store.delete(list(store.keys("_batchkit/run-1/")))

    with probing(remove), pytest.raises(PermanentError, match="restart the run"):
        sink.publish(publication(3))


def asked_after(calls: int) -> Callable[[], str | None]:
    """Return a question that is answered with a reason from the given call on."""
    left = [calls]

    def ask() -> str | None:
        left[0] -= 1
        return "the worker shuts down" if left[0] < 0 else None

    return ask


def test_stop_is_heeded_between_all_steps(sink: OpenSink, place: Place) -> None:
    """A stop ends the publication wherever it is, with its reason, and the next call finishes it."""
    for calls in range(5):  # after each of three copies, before the switch, before the cleaning up
        with pytest.raises(StoppedError, match="the worker shuts down"):
            sink.publish(publication(3, stop_asked=asked_after(calls)))
    sink.publish(publication(3, stop_asked=asked_after(5)))
    assert place.names() == names(1, 2, 3)
    assert place.ids() == ["1", "2", "3"]


def test_manifest_that_changes_meanwhile_is_looked_at_again(sink: OpenSink, place: Place) -> None:
    """Somebody who replaces the manifest in the middle is noticed: the publication is repeated."""
    changed: list[str] = []

    def change(name: str, when: Literal["before", "after"]) -> None:
        if (name, when) == ("sink.switch", "before") and not changed:
            changed.append(name)
            other_place = place.below("other")
            other = other_place.sink()
            other.start(leg("9", run="run-0", generation="00000000"))
            other.publish(publication(0))
            place.store().put("manifest.json", other_place.content("manifest.json"))

    with probing(change), pytest.raises(TransientError, match="was changed while this leg published"):
        sink.publish(publication(3))
    sink.publish(publication(3))
    assert place.ids() == ["1", "2", "3"]


def test_fewer_parts_leave_no_stale_ones(sink: OpenSink, place: Place) -> None:
    """A later run with less to say leaves nothing of the earlier one, and nothing else is touched."""
    sink.publish(publication(3))
    sink.release()
    store = place.store()
    for foreign in ("part-only-00009-0a0a0a0a.csv", "part-x", "notes/part-only-00001-0a0a0a0a.ndjson.gz"):
        store.put(foreign, b"")
    later = place.sink()
    later.start(leg("2", run="run-2", generation="0b0b0b0b"))
    write(later, 1, ["one"])
    later.publish(publication(1))
    later.release()
    left = set(place.names()) - set(names(1, generation="0b0b0b0b"))
    assert left == {"part-x", "notes/part-only-00001-0a0a0a0a.ndjson.gz"}


def test_nothing_to_say_is_said(place: Place) -> None:
    """A run without records publishes a manifest without parts: an empty output is not a missing one."""
    sink = place.sink()
    sink.start(leg("1"))
    assert sink.publish(publication(0))["parts"] == 0
    sink.release()
    assert place.manifest()["parts"] == []
    assert place.names() == TIDY


def test_leftovers_of_failed_runs_go_with_the_next_publication(sink: OpenSink, place: Place) -> None:
    """Copies that runs made before they failed, one after the other, are gone when one succeeds."""
    for token, run, generation in (("1", "run-1", "0a0a0a0a"), ("2", "run-2", "0b0b0b0b")):
        if token != "1":
            sink = place.sink()
            sink.start(leg(token, run=run, generation=generation))
            write(sink, 1, [1])
        with pytest.raises(ReconciliationError):
            sink.publish(publication(100))
        sink.release()
    assert len([name for name in place.names() if name.startswith("part-")]) == 4
    last = place.sink()
    last.start(leg("3", run="run-3", generation="0c0c0c0c"))
    write(last, 1, [7])
    last.publish(publication(1))
    assert place.names() == names(1, generation="0c0c0c0c")


def test_restart_under_the_same_generation_replaces_everything(sink: OpenSink, place: Place) -> None:
    """A run that is begun anew, without a new clear, does not take its own earlier output for finished."""
    sink.publish(publication(3))
    sink.release()
    anew = place.sink()
    anew.start(leg("2"))
    anew.publish(publication(0))
    assert place.names() == TIDY


def test_older_leg_that_published_late_is_not_doubled(sink: OpenSink, place: Place) -> None:
    """When an older leg switched after it was superseded, the newer one publishes what it has itself."""
    claimed = place.sink()
    store = place.store()

    def take_over(name: str, when: Literal["before", "after"]) -> None:
        if (name, when) == ("sink.switch", "before") and "2" * 16 not in str(
            store.folders("_batchkit/run-1/")
        ):
            claimed.start(leg("2", inherited=inherited("1", after_batch(1))))

    with probing(take_over), pytest.raises(SupersededError, match="owned by leg"):
        sink.publish(publication(3))
    write(claimed, 1, ["again 2 and 3"])
    claimed.publish(publication(2, FINISHED))
    claimed.release()
    assert place.ids() == ["1", "again 2 and 3"]
    assert place.names() == names(1, 2)


@pytest.mark.fault("zombie", at="file")
@pytest.mark.usefixtures("sink")
def test_leg_that_froze_when_it_had_claimed_says_who_took_over(place: Place) -> None:
    """Another leg has published since, and all staging is gone: that is no reason to restart the run."""
    frozen, newer = place.sink(), place.sink()
    taken: list[str] = []

    def take_over(name: str, when: Literal["before", "after"]) -> None:
        if (name, when) == ("sink.claim", "after") and not taken:
            taken.append(name)
            newer.start(leg("3", inherited=inherited("1", after_batch(3))))
            newer.publish(publication(3))

    with (
        probing(take_over),
        pytest.raises(SupersededError, match=f"owned by leg {'3' * 16} of run run-1"),
    ):
        frozen.start(leg("2", inherited=inherited("1", after_batch(3))))
    assert place.names() == names(1, 2, 3)


@pytest.mark.fault("zombie", at="file")
@pytest.mark.usefixtures("sink")
def test_leg_that_froze_before_it_claimed_finds_the_output_that_another_leg_published(place: Place) -> None:
    """All staging is gone because the run is complete: this leg has nothing to do, and nothing to restart."""
    frozen, newer = place.sink(), place.sink()
    taken: list[str] = []

    def publish(name: str, when: Literal["before", "after"]) -> None:
        if (name, when) == ("sink.claim", "before") and not taken:
            taken.append(name)
            newer.start(leg("3", inherited=inherited("1", after_batch(3))))
            newer.publish(publication(3))
            newer.release()

    with probing(publish):
        frozen.start(leg("2", inherited=inherited("1", after_batch(3))))
    frozen.publish(publication(3))
    assert place.names() == names(1, 2, 3)
    assert place.ids() == ["1", "2", "3"]
