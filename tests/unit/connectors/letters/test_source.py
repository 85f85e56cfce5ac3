"""The records of dead letters: exactly as they were given up, in order, after any cursor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.letters import DeadLetterSource, LetterFilter
from airflow_batchkit.connectors.letters.place import Line
from airflow_batchkit.connectors.letters.source import replayed_record
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.engine.dead_letters import DeadLetter, ReplayedRecord, envelope
from airflow_batchkit.engine.exceptions import CannotResumeError, PermanentError, UsageError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import ErrorBudget
from airflow_batchkit.engine.sink import BatchKey, Leg
from airflow_batchkit.engine.types import Page, Record, Rejection, Sizing
from airflow_batchkit.testing.doubles import MemoryStore
from tests.support.object_storage import Place, S3Connections
from tests.support.replay_sweep import World, broken, orders

if TYPE_CHECKING:
    from pathlib import Path

EVEN = [str(number) for number in range(0, 24, 2)]
SMALL = Sizing(batch_records=None, batch_bytes=10**6, page_records=5)
SET = "letters/dag.export/run-1"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Publish an output that lacks every other order."""
    place = Place(url=f"file://{tmp_path}/out", connections=S3Connections(endpoint_url=""))
    world = World(place, tmp_path, "world")
    world.export()
    return world


def pages(world: World, after: Any = None, **settings: Any) -> list[Page]:
    """Read the letters."""
    source = DeadLetterSource(DeadLetters(f"{world.place.url}/letters"), **settings)
    opened = source.open(world.place.context)
    try:
        return list(opened.read(0, after, SMALL))
    finally:
        opened.close()


def ids(found: list[Page]) -> list[str]:
    """Return the ids of what was read."""
    return [record.id for page in found for record in page.records]


def test_every_letter_is_read_as_it_was_given_up(world: World) -> None:
    """All letters come, in the order of the run, with the bytes of the record and its letter."""
    found = pages(world)

    assert ids(found) == EVEN
    record = found[0].records[0]
    assert isinstance(record, ReplayedRecord)
    assert bytes(record.body) == b'{"number":"0","amount":1.5}'
    assert record.letter.error_type == "RecordError"


def test_a_record_comes_back_with_all_that_it_was() -> None:
    """Id, routing, index, version and every literal are those of the record that was given up."""
    record = Record("ü", b'{"n":12345678901234567890,"f":1.0,"e":1e400}', routing="r", index="i", version=3)
    leg = Leg(job="j", run="r", token="t", generation="g", mode="real", partitions=("p",))
    rejection = Rejection(record=record, stage="sink", error_class="record", error_type="E", message="m")
    line = msgspec.json.encode(envelope(rejection, leg=leg, key=BatchKey(partition=0, number=1)))

    found = replayed_record(Line({}, line, msgspec.json.decode(line, type=DeadLetter)))

    assert (found.id, found.body, found.routing, found.index, found.version) == (
        record.id,
        record.body,
        "r",
        "i",
        3,
    )


def test_reading_goes_on_after_any_cursor(world: World) -> None:
    """Whichever record was the last, the rest comes, and nothing else."""
    found = pages(world)
    cursors = [
        page.cursor_at(place) for page in found if page.cursor_at for place in range(len(page.records))
    ]

    for position, cursor in enumerate(cursors, start=1):
        assert ids(pages(world, after=json.loads(json.dumps(cursor)))) == EVEN[position:]


def test_only_what_the_filter_means_is_read(world: World) -> None:
    """Letters that the filter does not mean are passed over."""
    assert ids(pages(world, only=LetterFilter(ids=["4", "6"]))) == ["4", "6"]
    assert pages(world, only=LetterFilter(error_types=["KeyError"])) == []


def test_letters_that_changed_are_not_read_on(world: World) -> None:
    """A cursor from before another replay is refused."""
    cursor = pages(world)[0].cursor_at
    assert cursor is not None
    before = cursor(1)
    world.replay()

    with pytest.raises(CannotResumeError, match="have changed since this replay began"):
        pages(world, after=before)


def test_the_output_says_which_letters(world: World) -> None:
    """Where a place holds several runs' letters, those of the run that the output shows are read."""
    Pipeline(
        Job(
            name="dag.export",
            source=IterableSource(records=orders, key="number"),
            sink=ObjectStorageSink(url=f"{world.place.url}/other"),
            transform=broken,
            error_budget=ErrorBudget(max_dead_letters=12),
            dead_letters=DeadLetters(f"{world.place.url}/letters"),
        ),
        identity=RunIdentity(run="run-2"),
        store=MemoryStore(),
        key="run-2",
        connections=world.place.connections,
    ).run()

    with pytest.raises(UsageError, match="holds the letters of 2 runs"):
        pages(world)
    for data, run in (("data", "run-1"), ("other", "run-2")):
        found = pages(world, output=ObjectStorageSink(url=f"{world.place.url}/{data}"))
        records = [record for page in found for record in page.records]
        assert {record.letter.run for record in records if isinstance(record, ReplayedRecord)} == {run}
    with pytest.raises(UsageError, match="stale"):
        pages(world, output=ObjectStorageSink(url=f"{world.place.url}/data"), run="run-2")
    with pytest.raises(UsageError, match="nothing is published"):
        pages(world, output=ObjectStorageSink(url=f"{world.place.url}/nowhere"))


def test_letters_of_an_older_generation_are_stale(world: World) -> None:
    """Letters that belong to an output that was replaced since are refused."""
    manifest = world.place.content("data/manifest.json")
    generation = json.loads(manifest)["generation"].encode()
    world.place.store().put("data/manifest.json", manifest.replace(generation, b"0a0a0a0a"))

    with pytest.raises(UsageError, match="are stale"):
        pages(world, output=ObjectStorageSink(url=f"{world.place.url}/data"))


def test_the_folder_of_one_run_is_not_the_place(world: World) -> None:
    """The place that the report names is refused with what to give instead."""
    with pytest.raises(UsageError, match="two folders above it"):
        DeadLetterSource(DeadLetters(f"{world.place.url}/{SET}")).open(world.place.context)


def test_a_damaged_line_is_named_and_not_quoted(world: World) -> None:
    """What is no letter fails the reading; its content is not in the message."""
    part = json.loads(world.place.content(f"{SET}/letters.json"))["parts"][0]["key"]
    content = world.place.content(f"{SET}/{part}")
    world.place.store().put(f"{SET}/{part}", content.replace(b'"record":{', b'"record":secret{'))

    with pytest.raises(PermanentError, match=r"line 1 of .* is no dead letter") as raised:
        pages(world)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("name", ["../../../data/manifest.json", "letters-x-00001-0a0a0a0a.ndjson", "other"])
def test_a_name_that_leads_elsewhere_is_not_followed(world: World, name: str) -> None:
    """A letters.json that names what is not of this set is not read, and said to be wrong."""
    manifest = world.place.content(f"{SET}/letters.json")
    part = json.loads(manifest)["parts"][0]["key"]
    world.place.store().put(f"{SET}/letters.json", manifest.replace(part.encode(), name.encode()))

    with pytest.raises(PermanentError, match="its objects hold"):
        pages(world)


def test_a_cut_object_is_found_out(world: World) -> None:
    """An object with fewer lines than were written fails the reading."""
    part = json.loads(world.place.content(f"{SET}/letters.json"))["parts"][0]["key"]
    content = world.place.content(f"{SET}/{part}")
    world.place.store().put(f"{SET}/{part}", content.splitlines(keepends=True)[0])

    with pytest.raises(PermanentError, match="has 1 lines"):
        pages(world)
