"""Output in a real folder and behind a real S3 API: one suite for both."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.engine.checkpoint import Frontier, PartitionProgress
from airflow_batchkit.engine.exceptions import TargetHeldError, UsageError
from airflow_batchkit.engine.sink import BatchKey
from airflow_batchkit.engine.types import Record
from airflow_batchkit.testing.contract import StagedOutputContract
from tests.support.object_storage import Place, decompress, inherited, leg, make_place, publication, write

if TYPE_CHECKING:
    from airflow_batchkit.engine.source import OpenContext
    from airflow_batchkit.testing.contract.sink import MakeSink, Visible

PARTITIONS = ("orders.0", "orders.1")
BODIES = [
    b'{"big":12345678901234567890123,"float":1.0,"far":1e400,"minus":-0.0,"E":1E+5}',
    b'{"escapes":"\\u00e9\\/\\n\\ud83d\\ude00","raw":"\xc3\xa9\xf0\x9f\x98\x80"}',
    b"{}",
    b'{\n  "pretty": [\n    1,\n    2\n  ]\n}',
    b'  {"white":"space"}',
    b'{"z":1,"a":{"b":[{"c":{}}]}}',
    b'{"_id":"its own"}',
    b'{"text":"' + b"x" * 5_000_000 + b'"}',
]
LINES = [
    BODIES[0][1:],
    BODIES[1][1:],
    b"}",
    b'"pretty":[1,2]}',
    b'"white":"space"}',
    BODIES[5][1:],
    b'"_source":{"_id":"its own"}}',
    BODIES[7][1:],
]
IDS = ["../x", 'q"uote', "s p a c e", "é" * 256, "a/b", "\x00\n\x1f", "1", "2"]


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty place of each kind."""
    return make_place(request.param, request)


class TestContract(StagedOutputContract):
    @pytest.fixture
    @override
    def make_sink(self, place: Place) -> MakeSink:
        return lambda: ObjectStorageSink(url=place.url)

    @pytest.fixture
    @override
    def context(self, place: Place) -> OpenContext:
        return place.context

    @pytest.fixture
    @override
    def visible(self, place: Place) -> Visible:
        return lambda: place.ids() if "manifest.json" in place.names() else []


@pytest.mark.parametrize("compression", ["gzip", "zstd", None])
def test_every_byte_arrives(place: Place, compression: str | None) -> None:
    """Literals, escapes, unicode, order of keys, odd ids, five megabytes: all arrive as they were."""
    sink = place.sink(compression=compression)
    sink.start(leg("1"))
    writer = sink.begin(BatchKey(partition=0, number=1))
    writer.add([Record(id=name, body=body) for name, body in zip(IDS, BODIES, strict=True)])
    writer.write()
    sink.publish(publication(len(IDS)))
    key = place.manifest()["parts"][0]["key"]
    assert key.endswith({"gzip": ".ndjson.gz", "zstd": ".ndjson.zst", None: ".ndjson"}[compression])
    text = decompress(key, place.content(key))
    found = text.removesuffix(b"\n").split(b"\n")
    assert len(found) == len(IDS)
    for line, name, fields in zip(found, IDS, LINES, strict=True):
        assert line.endswith(fields)
        assert json.loads(line)["_id"] == name


def test_manifest_says_what_lies_there(place: Place) -> None:
    """The manifest names every object with its size, sum and records, and who wrote it from what."""
    sink = place.sink()
    sink.start(leg("1", partitions=PARTITIONS))
    write(sink, 1, [1, 2], partition=0)
    write(sink, 3, [3], partition=0)
    write(sink, 1, [4], partition=1)
    report = sink.publish(publication(4, Frontier(2)))
    sink.release()
    manifest = place.manifest()
    assert report == {
        "location": place.url,
        "manifest": f"{place.url}/manifest.json",
        "parts": 3,
        "records": 4,
        "bytes": manifest["total"]["bytes"],
    }
    assert manifest["location"] == place.url
    assert [(part["key"], part["partition"], part["records"]) for part in manifest["parts"]] == [
        ("part-orders.0-00001-0a0a0a0a.ndjson.gz", "orders.0", 2),
        ("part-orders.0-00002-0a0a0a0a.ndjson.gz", "orders.0", 1),
        ("part-orders.1-00001-0a0a0a0a.ndjson.gz", "orders.1", 1),
    ]
    for part in manifest["parts"]:
        content = place.content(part["key"])
        assert (len(content), hashlib.sha256(content).hexdigest()) == (part["bytes"], part["sha256"])
    assert (manifest["job"], manifest["run"], manifest["generation"]) == ("job", "run-1", "0a0a0a0a")
    assert (manifest["compression"], manifest["conditional_writes"]) == ("gzip", True)
    assert manifest["counts"]["written"] == 4
    assert manifest["fingerprints"] == {"source": "test"}
    assert place.names() == sorted(
        ["_SUCCESS", "_batchkit/owner.json", "manifest.json", *(part["key"] for part in manifest["parts"])]
    )


def test_three_legs_make_one_output(place: Place) -> None:
    """Parts of all legs are published, each record once, numbered per partition without gaps."""
    first = place.sink()
    first.start(leg("1", partitions=PARTITIONS))
    write(first, 1, ["a"], partition=0)
    write(first, 2, ["lost"], partition=0)
    line = Frontier(1, (PartitionProgress(0, {"at": 1}, 1),))
    second = place.sink()
    second.start(leg("2", partitions=PARTITIONS, inherited=inherited("1", line)))
    write(second, 1, ["b"], partition=0)
    write(second, 1, ["c"], partition=1)
    write(second, 2, ["lost too"], partition=1)
    line = Frontier(2, (PartitionProgress(1, {"at": 1}, 1),))
    third = place.sink()
    third.start(leg("3", partitions=PARTITIONS, inherited=inherited("2", line)))
    write(third, 1, ["d", "e"], partition=1)
    third.publish(publication(5, Frontier(2)))
    assert place.ids() == ["a", "b", "c", "d", "e"]
    assert [part["key"][5:19] for part in place.manifest()["parts"]] == [
        "orders.0-00001",
        "orders.0-00002",
        "orders.1-00001",
        "orders.1-00002",
    ]
    assert not [name for name in place.names() if "_batchkit/run-1" in name]


def test_next_run_replaces_and_foreign_objects_stay(place: Place) -> None:
    """Fewer parts than last time leave no stale ones; what others put under the prefix is not touched."""
    place.store().put("notes.txt", b"mine")
    place.store().put("part-foreign.csv", b"mine")
    for token, run, generation, count in (("1", "run-1", "0a0a0a0a", 3), ("2", "run-2", "0b0b0b0b", 1)):
        sink = place.sink()
        sink.start(leg(token, run=run, generation=generation))
        for number in range(1, count + 1):
            write(sink, number, [f"{run}-{number}"])
        sink.publish(publication(count))
        sink.release()
    assert place.ids() == ["run-2-1"]
    assert place.names() == [
        "_SUCCESS",
        "_batchkit/owner.json",
        "manifest.json",
        "notes.txt",
        "part-foreign.csv",
        "part-only-00001-0b0b0b0b.ndjson.gz",
    ]


def test_prefix_has_one_job_and_one_live_run(place: Place) -> None:
    """Another run waits, another job is refused; both are told who owns the prefix."""
    place.sink().start(leg("1"))
    with pytest.raises(TargetHeldError, match="held by run run-1") as held:
        place.sink().start(leg("2", run="run-2", generation="0b0b0b0b"))
    assert 0 < (held.value.retry_after or 0) <= 125
    with pytest.raises(UsageError, match="belongs to the job 'job'"):
        place.sink().start(leg("3", job="another"))


def test_hundreds_of_parts_are_copied_in_order(place: Place) -> None:
    """More parts than copies at a time end up complete and in order."""
    sink = place.sink()
    sink.start(leg("1"))
    for number in range(1, 121):
        write(sink, number, [number])
    sink.publish(publication(120))
    assert place.ids() == [str(number) for number in range(1, 121)]
