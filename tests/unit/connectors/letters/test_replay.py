"""A replay: what it refuses, and what becomes of the letters."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.connectors.callable import CallableSink
from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.letters import DeadLetterSource, LetterFilter
from airflow_batchkit.connectors.letters.replay import replay_of
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.engine.exceptions import RecordError, TargetHeldError, TransientError, UsageError
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchRetry, ErrorBudget
from airflow_batchkit.testing.doubles import MemoryStore
from tests.support.object_storage import Place, S3Connections
from tests.support.replay_sweep import World, fixed, orders

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_batchkit.engine.report import Report


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Publish an output that lacks every other order."""
    place = Place(url=f"file://{tmp_path}/out", connections=S3Connections(endpoint_url=""))
    world = World(place, tmp_path, "world")
    world.export()
    return world


def run(world: World, job: Job, name: str = "run-1") -> Report:
    """Run a job to its end."""
    return Pipeline(
        job,
        identity=RunIdentity(run=name),
        store=MemoryStore(),
        key=job.name,
        connections=world.place.connections,
    ).run()


def replay(world: World, only: LetterFilter | None = None, **changes: Any) -> Job:
    """Make a replay of the world's letters."""
    place = DeadLetters(f"{world.place.url}/letters")
    sink = changes.pop("sink", ObjectStorageSink(url=f"{world.place.url}/data"))
    source = DeadLetterSource(place, only=only or LetterFilter())
    job = Job(name="dag.replay", source=source, sink=sink, transform=changes.pop("transform", fixed))
    return dataclasses.replace(replay_of(job, source), **changes)


def test_a_second_replay_finds_nothing_to_do(world: World) -> None:
    """Once every letter is done, another replay reads none and changes no object."""
    run(world, replay(world, transform=None))
    before = world.place.names(), world.place.content("data/manifest.json")

    report = run(world, replay(world, transform=None), "run-2")

    assert (report.counts["read"], report.published["replayed"]) == (0, 0)
    assert (world.place.names(), world.place.content("data/manifest.json")) == before


def test_only_the_chosen_letters_leave_the_place(world: World) -> None:
    """A filter leaves the others where they are, untouched."""
    run(world, replay(world, LetterFilter(ids=["2", "4", "6", "8"])))

    picture = world.picture()
    assert picture["whole"]
    assert dict(picture["letters"]) == {
        "8": 1,
        **{str(number): 0 for number in (0, 10, 12, 14, 16, 18, 20, 22)},
    }


def test_a_letter_that_keeps_failing_is_left_alone(world: World) -> None:
    """It is tried as often as max_replays says, and then no more, which the log says."""
    only = LetterFilter(ids=["8"], max_replays=2)
    reads = [run(world, replay(world, only), f"run-{number}").counts["read"] for number in range(4)]

    assert reads == [1, 1, 0, 0]
    assert dict(world.picture()["letters"])["8"] == 2


def test_local_mode_changes_nothing(world: World) -> None:
    """A LOCAL replay reads and transforms, and leaves output and letters as they are."""
    before = world.picture()

    report = run(world, replay(world, local=True))

    assert (report.counts["read"], report.counts["skipped"]) == (12, 8)
    assert world.picture() == before


def test_a_replay_of_a_part_is_refused(world: World) -> None:
    """A replay that ends early could not tell which letters it has done."""
    with pytest.raises(UsageError, match="not by max_batches"):
        run(world, replay(world, max_batches=1))


@pytest.mark.parametrize("verb", ["letters.prepare", "sink.switch", "letters.switch", "letters.tidy"])
def test_a_store_that_fails_for_a_while_is_asked_again(world: World, verb: str) -> None:
    """A step of the end that fails once its effect is done is repeated, and nothing is done twice."""
    failed: list[str] = []

    def fail_once(name: str, when: str) -> None:
        if (name, when) == (verb, "after") and not failed:
            failed.append(name)
            raise TransientError("no answer")

    quick = BatchRetry(first_wait=timedelta(milliseconds=1))
    with probing(fail_once):
        run(world, replay(world, transform=None, batch_retry=quick))

    picture = world.picture()
    assert failed
    assert picture["whole"]
    assert (len(picture["lines"]), picture["letters"], picture["leftovers"]) == (24, [], [])


@pytest.mark.parametrize("owner", ["letters/dag.export", "data"])
def test_two_replays_at_once_are_refused(world: World, owner: str) -> None:
    """While one owns the letters or the output, the other says who it is, and touches nothing."""
    run(world, replay(world, LetterFilter(ids=["2"])))
    key = f"{owner}/_batchkit/owner.json"
    record = json.loads(world.place.content(key))
    held = {**record, "run": "replay-9", "lease_until": 4e9, "released": False}
    world.place.store().put(key, json.dumps(held).encode())
    before = world.picture()

    with pytest.raises(TargetHeldError, match="held by run replay-9"):
        run(world, replay(world), "run-2")

    assert world.picture() == before


def test_an_unwritable_place_fails_before_anything_is_done(world: World, tmp_path: Path) -> None:
    """Where what fails again could not be kept, the replay does not begin."""
    before = world.picture()
    blocked = tmp_path / "out" / "world" / "letters" / "_batchkit"
    if blocked.exists():
        (blocked / ".lock").unlink()
        blocked.rmdir()
    blocked.write_text("a file where a folder must be")

    with pytest.raises(Exception, match="_batchkit"):
        run(world, replay(world))

    blocked.unlink()
    assert world.picture() == before


def test_a_receiver_sees_the_keys_of_the_first_time(world: World) -> None:
    """What a callable refused is handed over again under the same key, and is not transformed twice."""
    seen: list[tuple[str, int, str]] = []
    refuse = True

    def call(document: dict[str, Any], *, idempotency_key: str) -> None:
        seen.append((document["number"], document["times"], idempotency_key))
        if refuse and document["number"] == "3":
            raise RecordError("not this one")

    def once_more(order: dict[str, Any]) -> dict[str, Any]:
        return {**order, "times": order.get("times", 0) + 1}

    letters = DeadLetters(f"{world.place.url}/calls")
    job = Job(
        name="dag.call",
        source=IterableSource(records=orders, key="number"),
        sink=CallableSink(function=call),
        transform=once_more,
        error_budget=ErrorBudget(max_dead_letters=3),
        dead_letters=letters,
    )
    run(world, job)
    refuse = False
    first = next(call for call in seen if call[0] == "3")
    seen.clear()

    again = replay_of(dataclasses.replace(job, name="dag.replay"), DeadLetterSource(letters))
    report = run(world, again, "run-2")

    assert seen == [first]
    assert (report.counts["written"], report.dead_letters["count"]) == (1, 0)
    assert run(world, again, "run-3").counts["read"] == 0
