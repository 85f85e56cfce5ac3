"""Settings are checked before any work, and batches become staged objects."""

from __future__ import annotations

import gzip
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink, S3Settings
from airflow_batchkit.connectors.object_storage.final import MAX_PARTS
from airflow_batchkit.engine.dead_letters import DeadLetterPlace
from airflow_batchkit.engine.exceptions import (
    CannotResumeError,
    PermanentError,
    TransientError,
    UsageError,
)
from airflow_batchkit.engine.sink import BatchKey, Sink
from tests.support.object_storage import (
    FINISHED,
    Place,
    after_batch,
    inherited,
    leg,
    make_place,
    publication,
    records,
    write,
)

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.store import ObjectStore

ONE = BatchKey(partition=0, number=1)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty folder."""
    return make_place("file", request)


def test_settings_are_values() -> None:
    """They are what the engine takes, serialise without secrets, and read the same in every process."""
    sink: Sink = ObjectStorageSink(url="s3://lake/orders")
    letters: DeadLetterPlace = DeadLetters("s3://lake/dead", conn_id="other")
    assert isinstance(sink, Sink)
    assert isinstance(letters, DeadLetterPlace)
    assert sink.serialize() == {
        "url": "s3://lake/orders",
        "conn_id": "aws_default",
        "compression": "gzip",
        "verify_output": False,
        "s3_settings": None,
    }
    assert repr(letters) == "DeadLetters(url='s3://lake/dead', conn_id='other', s3_settings=None)"
    assert pickle.loads(pickle.dumps(sink)) == sink  # noqa: S301  # made one expression before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "s3://lake"}, "names no prefix"),
        ({"url": "s3://u:p@lake/x"}, "holds a user or a password"),
        ({"url": "s3://lake/x", "compression": "lz4"}, "'gzip', 'zstd' or None"),
        (
            {"url": "s3://lake/x", "verify_output": True, "s3_settings": S3Settings(storage_class="GLACIER")},
            "parts cannot be read back from storage_class='GLACIER'",
        ),
    ],
)
def test_bad_settings_are_refused_when_made(settings: dict[str, Any], said: str) -> None:
    """What can never work does not wait for the task to run."""
    with pytest.raises(UsageError, match=said):
        ObjectStorageSink(**settings)


def test_templates_are_checked_once_rendered() -> None:
    """A URL with a template in it is judged after rendering."""
    ObjectStorageSink(url="s3://lake/ds={{ ds }}")
    DeadLetters("{{ var.value.dead_letters }}")


@pytest.mark.parametrize("compression", ["gzip", "zstd", None])
def test_batch_is_one_object(place: Place, compression: str | None) -> None:
    """However many times records are added, a batch is one object, and written again it stays one."""
    sink = place.sink(compression=compression)
    sink.start(leg("1"))
    writer = sink.begin(ONE)
    for start in range(0, 1500, 300):
        writer.add(records(range(start, start + 300)))
    assert writer.write().written == 1500
    assert writer.write().written == 1500
    (key,) = (name for name in place.names() if "/part-" in name and ".meta" not in name)
    extension = {"gzip": ".ndjson.gz", "zstd": ".ndjson.zst", None: ".ndjson"}[compression]
    assert key == f"_batchkit/run-1/{'1' * 16}/part-00000-0000001{extension}"
    if compression == "gzip":
        ids = [json.loads(line)["_id"] for line in gzip.decompress(place.content(key)).splitlines()]
        assert ids == [str(number) for number in range(1500)]


def test_write_that_fails_can_be_called_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure that may pass the same writer writes the same bytes."""
    sink = place.sink()
    sink.start(leg("1"))
    store: ObjectStore = sink._store  # type: ignore[attr-defined]  # the seam at which the store fails
    writer = sink.begin(ONE)
    writer.add(records([1]))
    seen: list[object] = []

    def fail(key: str, content: bytes, **_: object) -> str:
        seen.append(content)
        raise TransientError(key)

    with monkeypatch.context() as patched:
        patched.setattr(store, "put", fail)
        for _ in range(2):
            with pytest.raises(TransientError):
                writer.write()
    assert seen[0] == seen[1]
    assert writer.write().written == 1
    sink.publish(publication(1))
    assert place.ids() == ["1"]


def test_too_many_parts_are_refused_with_advice(place: Place) -> None:
    """A run with far too many objects is stopped while it runs, not after hours when it publishes."""
    sink = place.sink()
    sink.start(leg("1"))
    sink.begin(BatchKey(partition=0, number=MAX_PARTS))
    with pytest.raises(PermanentError, match=r"raise BatchPolicy\.max_bytes"):
        sink.begin(BatchKey(partition=0, number=MAX_PARTS + 1))


def test_start_comes_first(place: Place) -> None:
    """Calls in the wrong order are a mistake of the program, and say so."""
    with pytest.raises(RuntimeError, match="start"):
        place.sink().begin(ONE)


def test_manifest_of_another_tool_is_found_before_any_work(place: Place) -> None:
    """A foreign ``manifest.json`` is refused at the start, and nothing was claimed."""
    place.store().put("manifest.json", b'{"nodes": {}}')
    with pytest.raises(UsageError, match="was not written by this package"):
        place.sink().start(leg("1"))
    assert place.names() == ["manifest.json"]


def test_resuming_without_the_staged_parts_is_refused_at_once(place: Place) -> None:
    """When another run has published since, a resumed run does not work in vain, and leaves nothing there."""
    first = place.sink()
    first.start(leg("1"))
    write(first, 1, [1])
    first.release()
    other = place.sink()
    other.start(leg("2", run="run-2", generation="0b0b0b0b"))
    other.publish(publication(0))
    other.release()
    before = place.names()
    resumed = place.sink()
    with pytest.raises(CannotResumeError, match=r"is gone .*restart the run"):
        resumed.start(leg("3", inherited=inherited("1", after_batch(1))))
    assert place.names() == before
    other.start(leg("4", run="run-3", generation="0c0c0c0c"))


def test_fingerprints_tell_targets_and_formats_apart(place: Place) -> None:
    """A checkpoint does not fit another target or another format."""
    plain = place.sink(compression=None).fingerprints
    assert plain == place.sink(compression=None).fingerprints
    assert plain["format"] != place.sink().fingerprints["format"]
    assert plain["target"] != place.below("x").sink().fingerprints["target"]


def test_release_that_fails_is_only_said(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A release comes after failures of every kind: it raises nothing, the lease runs out by itself."""
    sink = place.sink()
    sink.start(leg("1"))

    def fail(*_: object, **__: object) -> str:
        raise PermanentError("no")

    monkeypatch.setattr(sink._store, "put", fail)  # type: ignore[attr-defined]  # the seam at which it fails
    sink.release()
    assert "its lease runs out by itself" in caplog.text


def test_partial_run_keeps_its_place(place: Place) -> None:
    """A run over a part of the source publishes beside the whole output, never over it."""
    whole = place.sink()
    whole.start(leg("1"))
    write(whole, 1, [1, 2])
    whole.publish(publication(2))
    part = place.sink()
    part.start(leg("2", run="run-2", generation="0b0b0b0b", mode="partial"))
    write(part, 1, [1])
    location = part.publish(publication(1, FINISHED))["location"]
    assert location == f"{place.url}/_partial/run-2"
    assert place.ids() == ["1", "2"]
    assert place.below("_partial/run-2").ids() == ["1"]
