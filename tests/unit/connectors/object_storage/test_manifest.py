"""The manifest is ordinary JSON, written and read without holding it whole."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.connectors.object_storage.manifest import (
    MANIFEST,
    ManifestFile,
    Part,
    read_head,
    read_parts,
)
from airflow_batchkit.connectors.object_storage.store import MissingObjectError, ObjectStore
from airflow_batchkit.engine.exceptions import TransientError, UsageError
from tests.support.object_storage import make_place

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDS = {"job": "job", "run": "run-1", "generation": "0a0a0a0a", "token": "t", "counts": {"read": 3}}


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    """Give an empty folder, opened."""
    store = make_place("file", request).store()
    yield store
    store.close()


def part(number: int) -> Part:
    """Make a part."""
    return Part(key=f"part-é-{number:05d}", partition="é", records=2, bytes=10, sha256="s" * 64)


def save(store: ObjectStore, count: int, **fields: Any) -> bytes:
    """Write a manifest with so many parts and return it."""
    with ManifestFile() as manifest:
        for number in range(count):
            manifest.add(part(number))
        file = manifest.finish({**FIELDS, **fields})
        store.put(MANIFEST, file)
        file.seek(0)
        content = file.read()
        assert hashlib.sha256(content).hexdigest() == manifest.sha256
    return content


@pytest.mark.parametrize("count", [0, 1, 3])
def test_manifest_is_json(store: ObjectStore, count: int) -> None:
    """Anybody can read it: fields, totals, parts."""
    manifest = json.loads(save(store, count, note="two\nlines"))
    assert (manifest["format"], manifest["format_version"]) == ("ndjson", 1)
    assert manifest["note"] == "two\nlines"
    assert manifest["total"] == {"parts": count, "records": 2 * count, "bytes": 10 * count}
    assert [found["key"] for found in manifest["parts"]] == [part(number).key for number in range(count)]
    assert set(manifest["parts"][0] if count else ()) <= {"key", "partition", "records", "bytes", "sha256"}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_manifest_is_read_back(store: ObjectStore, count: int) -> None:
    """The next publication reads who wrote it, and what it names."""
    assert read_head(store, MANIFEST) is None
    save(store, count)
    found = read_head(store, MANIFEST)
    assert found is not None
    assert (found.head.run, found.head.generation, found.head.token) == ("run-1", "0a0a0a0a", "t")
    assert list(read_parts(store, MANIFEST)) == [part(number) for number in range(count)]


def test_parts_of_another_generation_are_not_given(store: ObjectStore) -> None:
    """Who removes what is older by what a manifest names does so by its own, never by the older one."""
    save(store, 1)
    assert len(list(read_parts(store, MANIFEST, generation="0a0a0a0a"))) == 1
    with pytest.raises(TransientError, match="not of 0b0b0b0b"):
        list(read_parts(store, MANIFEST, generation="0b0b0b0b"))


def test_no_manifest_has_no_parts(store: ObjectStore) -> None:
    """Reading the parts of nothing says so."""
    with pytest.raises(MissingObjectError):
        list(read_parts(store, MANIFEST))


@pytest.mark.parametrize(
    "content", [b'{"nodes": {}, "sources": []}', b"[1]", b"", b"not json\n", b'{\n"a": 1\n}\n']
)
def test_manifest_of_somebody_else_is_refused(store: ObjectStore, content: bytes) -> None:
    """Other tools have a ``manifest.json`` too: it is not replaced, and the message says what to do."""
    store.put(MANIFEST, content)
    with pytest.raises(UsageError, match="was not written by this package; move it away"):
        read_head(store, MANIFEST)


def test_memory_does_not_grow_with_the_parts(store: ObjectStore) -> None:
    """Twenty thousand parts are written and read in a few megabytes."""
    tracemalloc.start()
    try:
        with ManifestFile() as manifest:
            for number in range(20_000):
                manifest.add(part(number))
            store.put(MANIFEST, manifest.finish(FIELDS))
        assert sum(1 for _ in read_parts(store, MANIFEST)) == 20_000
        assert read_head(store, MANIFEST) is not None
        assert tracemalloc.get_traced_memory()[1] < 5 * 1024 * 1024
    finally:
        tracemalloc.stop()
