"""From a real Elasticsearch to S3 and files: every line holds the document's ``_source``, byte for byte."""

from __future__ import annotations

import gzip
import json
import secrets
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
import pytest

from airflow_batchkit.connectors.elasticsearch import ElasticsearchSource
from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy
from airflow_batchkit.testing.doubles import MemoryStore
from tests.support.connections import ServerConnections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.s3 import S3Server

pytestmark = [pytest.mark.elasticsearch, pytest.mark.s3]

BODIES = {
    "large integer": b'{"n":12345678901234567890}',
    "larger integer": b'{"x":123456789012345678901234567890123}',
    "floats": b'{"x":1.0,"y":0.10,"z":-0.0,"e":1E+2}',
    "out of range": b'{"x":1e400,"y":-1e-400}',
    "escapes": b'{"s":"\\u00e9\\/\\"\\\\\\t \\ud83d\\ude00 \\u2028"}',
    "unicode": '{"s":"é 😀 \u2028 \x7f","日本":"語"}'.encode(),
    "key order": b'{"b":1,"a":2,"c":{"z":1,"y":[3,2,1]}}',
    "nested": b'{"a":' * 200 + b"{}" + b"}" * 200,
    "nulls": b'{"a":null,"b":[],"c":"","d":[null,{}]}',
    "5 MB": b'{"s":"' + b"x" * 5_000_000 + b'"}',
    **dict.fromkeys(("../x", 'quo"ted', "a b", "é😀", "%2F", "line\nbreak", "<&>", "x" * 512), b'{"n":1}'),
}


class Exporter:
    """Exports an index to one of the two kinds of target and reads back what a consumer finds there."""

    def __init__(self, target: str, elasticsearch_url: str, s3: S3Server, bucket: str, folder: Path) -> None:
        self._target = target
        self._s3 = s3
        self._bucket = bucket
        self._folder = folder
        self._connections = ServerConnections(
            elasticsearch_url=elasticsearch_url,
            s3={
                "endpoint_url": s3.endpoint_url,
                "access_key": s3.access_key,
                "secret_key": s3.secret_key,
                "region": s3.region,
            },
        )

    def export(self, index: str | list[str], **settings: Any) -> list[bytes]:
        """Run the job and return the lines of the parts that the manifest lists, in order."""
        url = f"s3://{self._bucket}/out" if self._target == "s3" else f"file://{self._folder}/out"
        compression = settings.pop("compression", "gzip")
        Pipeline(
            Job(
                name="exact",
                source=ElasticsearchSource(index=index),
                sink=ObjectStorageSink(url=url, compression=compression),
                **settings,
            ),
            identity=RunIdentity(run=secrets.token_hex(4)),
            store=MemoryStore(),
            key="exact",
            connections=self._connections,
        ).run()
        manifest = json.loads(self.read("manifest.json"))
        assert self.read("_SUCCESS") == b""
        bodies = [self.read(part["key"]) for part in manifest["parts"]]
        plain = [gzip.decompress(body) if compression else body for body in bodies]
        return [line for body in plain for line in body.split(b"\n")[:-1]]

    def read(self, name: str) -> bytes:
        """Return one object."""
        if self._target == "file":
            return (self._folder / "out" / name).read_bytes()
        with self._s3.client() as client:
            return client.get_object(Bucket=self._bucket, Key=f"out/{name}")["Body"].read()

    def names(self) -> set[str]:
        """Return the names of all objects below the target but the owner record's folder."""
        if self._target == "file":
            root = self._folder / "out"
            found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        else:
            with self._s3.client() as client:
                listed = client.list_objects_v2(Bucket=self._bucket, Prefix="out/").get("Contents", [])
            found = {entry["Key"].removeprefix("out/") for entry in listed}
        return {name for name in found if name not in {"_batchkit/owner.json", "_batchkit/.lock"}}


@pytest.fixture(params=["s3", "file"])
def exporter(
    request: pytest.FixtureRequest,
    elasticsearch_server: ElasticsearchEndpoint,
    s3_server: S3Server,
    bucket: str,
    tmp_path: Path,
) -> Exporter:
    """Give an exporter for each kind of target."""
    return Exporter(request.param, elasticsearch_server.url, s3_server, bucket, tmp_path)


@pytest.fixture
def index(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give the name of an index of the test's own, which the test makes; names that begin with it go too."""
    name = f"exact-{secrets.token_hex(4)}"
    yield name
    elasticsearch_server.request("DELETE", f"/{name},{name}-b?ignore_unavailable=true")


def make(server: ElasticsearchEndpoint, index: str, *, shards: int = 1) -> None:
    """Make an index that looks into no document."""
    settings = {"number_of_shards": shards, "number_of_replicas": 0}
    server.request("PUT", f"/{index}", {"settings": settings, "mappings": {"enabled": False}})


def put(server: ElasticsearchEndpoint, index: str, id_: str, body: bytes, routing: str = "") -> None:
    """Index one document exactly as it is."""
    where = f"/{index}/_doc/{quote(id_, safe='')}" + (f"?routing={routing}" if routing else "")
    request = urllib.request.Request(  # noqa: S310 - the URL is the test server's own
        server.url + where, data=body, method="PUT", headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the URL is the test server's own
        assert answer.status in {200, 201}


def refresh(server: ElasticsearchEndpoint, *indices: str) -> None:
    """Make what was written visible."""
    server.request("POST", f"/{','.join(indices)}/_refresh")


def put_many(server: ElasticsearchEndpoint, index: str, count: int) -> None:
    """Index documents 0 to count - 1."""
    lines = "".join(f'{{"index":{{"_id":"{n}"}}}}\n{{"n":{n}}}\n' for n in range(count))
    if count:
        server.request("POST", f"/{index}/_bulk?refresh=true", lines.encode())


@pytest.mark.parametrize("shards", [1, 7])
def test_every_literal_arrives(
    exporter: Exporter, elasticsearch_server: ElasticsearchEndpoint, index: str, shards: int
) -> None:
    """Numbers, escapes, unicode, key order, 5 MB, odd ids: the line is the id and the body's own bytes."""
    make(elasticsearch_server, index, shards=shards)
    for id_, body in BODIES.items():
        put(elasticsearch_server, index, id_, body)
    refresh(elasticsearch_server, index)

    lines = exporter.export(index)

    found: dict[str, bytes] = {}
    for line in lines:
        fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        head = b'{"_id":%b,' % bytes(fields["_id"])
        assert line.startswith(head)
        found[msgspec.json.decode(fields["_id"])] = b"{" + line.removeprefix(head)
    assert found == BODIES


def test_empty_and_pretty_printed_documents_are_one_line_each(
    exporter: Exporter, elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """``{}``, line breaks and white space around a document: one line each that keeps the literals."""
    make(elasticsearch_server, index)
    put(elasticsearch_server, index, "empty", b"{}")
    put(elasticsearch_server, index, "spaced", b"{ }")
    put(elasticsearch_server, index, "pretty", b'{\n  "a" : 1.0,\r\n  "b" : [ 1e400,\t2 ]\n}')
    put(elasticsearch_server, index, "leading", b' \r\n\t{"a":12345678901234567890}  ')
    refresh(elasticsearch_server, index)

    assert sorted(exporter.export(index)) == [
        b'{"_id":"empty"}',
        b'{"_id":"leading","a":12345678901234567890}',
        b'{"_id":"pretty","a":1.0,"b":[1e400,2]}',
        b'{"_id":"spaced"}',
    ]


def test_half_a_character_survives(
    exporter: Exporter, elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """The escape of half a surrogate pair, which most JSON readers refuse, is exported as it is."""
    make(elasticsearch_server, index)
    put(elasticsearch_server, index, "1", b'{"s":"\\ud83d","t":1.0}')
    put(elasticsearch_server, index, "2", b'{"s":"\\\\ud83d \\ud83d\\ude00"}')
    refresh(elasticsearch_server, index)

    assert sorted(exporter.export(index)) == [
        b'{"_id":"1","s":"\\ud83d","t":1.0}',
        b'{"_id":"2","s":"\\\\ud83d \\ud83d\\ude00"}',
    ]


def test_a_body_with_its_own_id_is_wrapped(
    exporter: Exporter, elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """A body that has a key of ours, also spelled with an escape, stands whole under ``_source``."""
    make(elasticsearch_server, index)
    put(elasticsearch_server, index, "1", b'{"_id":"mine","x":1}')
    put(elasticsearch_server, index, "2", b'{"\\u005fid":"mine"}')
    put(elasticsearch_server, index, "3", b'{"inner":{"_id":"mine"}}')
    refresh(elasticsearch_server, index)

    assert sorted(exporter.export(index)) == [
        b'{"_id":"1","_source":{"_id":"mine","x":1}}',
        b'{"_id":"2","_source":{"\\u005fid":"mine"}}',
        b'{"_id":"3","inner":{"_id":"mine"}}',
    ]


def test_routed_documents_with_one_id_stay_apart(
    exporter: Exporter, elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """One id under several routings is several lines, each with its ``_routing``."""
    make(elasticsearch_server, index, shards=7)
    for routing in ("a", "b", "c", "d"):
        put(elasticsearch_server, index, "same", b'{"n":1}', routing)
    refresh(elasticsearch_server, index)
    stored = elasticsearch_server.request("GET", f"/{index}/_count")["count"]

    documents = [json.loads(line) for line in exporter.export(index)]

    assert len(documents) == stored > 1
    assert all(document["_id"] == "same" and document["_routing"] in "abcd" for document in documents)


def test_two_indices_name_the_index_of_each_line(
    exporter: Exporter, elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """An id that is in both of two indices is two lines, told apart by ``_index``."""
    both = [index, f"{index}-b"]
    for name in both:
        make(elasticsearch_server, name)
        put(elasticsearch_server, name, "1", b'{"n":1}')
    refresh(elasticsearch_server, *both)

    documents = [json.loads(line) for line in exporter.export(both)]

    assert sorted(document["_index"] for document in documents) == both


@pytest.mark.parametrize("count", [0, 1, 20, 21])
def test_any_number_of_records(
    exporter: Exporter, elasticsearch_server: ElasticsearchEndpoint, index: str, count: int
) -> None:
    """No record, one, exactly a multiple of the batch and one more: each once, and no empty object."""
    make(elasticsearch_server, index)
    put_many(elasticsearch_server, index, count)

    lines = exporter.export(index, batch=BatchPolicy(max_records=10), compression=None)

    assert sorted(int(json.loads(line)["_id"]) for line in lines) == list(range(count))
    manifest = json.loads(exporter.read("manifest.json"))
    assert all(part["records"] > 0 for part in manifest["parts"])
    assert exporter.names() == {"manifest.json", "_SUCCESS", *(part["key"] for part in manifest["parts"])}


def test_a_rerun_replaces_the_output(
    exporter: Exporter, elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """A second run with fewer documents leaves the second output only, and nothing of the first."""
    make(elasticsearch_server, index)
    put_many(elasticsearch_server, index, 50)
    exporter.export(index, batch=BatchPolicy(max_records=10))
    for number in range(30):
        elasticsearch_server.request("DELETE", f"/{index}/_doc/{number}")
    refresh(elasticsearch_server, index)

    lines = exporter.export(index, batch=BatchPolicy(max_records=10))

    assert Counter(json.loads(line)["_id"] for line in lines) == Counter(str(n) for n in range(30, 50))
    manifest = json.loads(exporter.read("manifest.json"))
    assert exporter.names() == {"manifest.json", "_SUCCESS", *(part["key"] for part in manifest["parts"])}


@pytest.mark.fault("changing-source", at="elasticsearch")
def test_documents_that_change_while_the_snapshot_is_lost(
    exporter: Exporter, elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """Untouched documents are there once, changed ones in their last version; deleted ones may be missing."""
    server, count = elasticsearch_server, 6_000
    make(server, index, shards=2)
    padding = "x" * 4_000  # what is read ahead cannot reach the end of a shard before the change
    for start in range(0, count, 2_000):
        lines = "".join(
            f'{{"index":{{"_id":"{n}"}}}}\n{{"n":{n},"state":"old","p":"{padding}"}}\n'
            for n in range(start, start + 2_000)
        )
        server.request("POST", f"/{index}/_bulk?refresh=true", lines.encode())
    updated, deleted, inserted = range(0, count, 7), range(3, count, 7), range(count, count + 50)
    seen = Counter[str]()

    def disturb(document: dict[str, Any]) -> dict[str, Any]:
        seen["documents"] += 1
        if seen["documents"] == count // 10:
            lines = [
                *(f'{{"index":{{"_id":"{n}"}}}}\n{{"n":{n},"state":"new"}}\n' for n in updated),
                *(f'{{"delete":{{"_id":"{n}"}}}}\n' for n in deleted),
                *(f'{{"index":{{"_id":"{n}"}}}}\n{{"n":{n},"state":"new"}}\n' for n in inserted),
            ]
            server.request("POST", f"/{index}/_bulk?refresh=true", "".join(lines).encode())
            server.request("POST", f"/{index}/_close")  # the points in time go with it
            server.request("POST", f"/{index}/_open?wait_for_active_shards=1")
        return {"n": document["n"], "state": document["state"]}

    found: dict[int, list[dict[str, Any]]] = {}
    for line in exporter.export(index, batch=BatchPolicy(max_records=250), transform=disturb):
        document = json.loads(line)
        found.setdefault(document["n"], []).append(document)

    manifest = json.loads(exporter.read("manifest.json"))
    assert manifest["snapshots"] > 1
    touched = {*updated, *deleted, *inserted}
    for number in set(range(count)) - touched:
        assert [document["state"] for document in found[number]] == ["old"], number
    for number in updated:
        last = max(found[number], key=lambda document: document.get("_version", 0))
        assert last["state"] == "new", number
