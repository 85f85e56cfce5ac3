"""Every store keeps the promises that publishing needs; a folder and an S3 API pass the same tests."""

from __future__ import annotations

import hashlib
import io
import time
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.object_storage.store import (
    SHA256,
    Condition,
    ConflictError,
    MissingObjectError,
    ObjectStore,
)
from airflow_batchkit.engine.exceptions import UsageError
from tests.support.object_storage import Place, make_place

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty place of each kind."""
    return make_place(request.param, request)


@pytest.fixture
def store(place: Place) -> Iterator[ObjectStore]:
    """Give the place, opened."""
    store = place.store()
    yield store
    store.close()


def content(store: ObjectStore, key: str) -> bytes:
    """Read an object whole."""
    with store.read(key) as reading:
        return reading.file.read()


def put_if(store: ObjectStore, text: bytes, etag: str | None) -> str:
    """Write one object under a condition."""
    metadata = {SHA256: hashlib.sha256(text).hexdigest()}
    return store.put("x/owner.json", text, metadata=metadata, condition=Condition(etag=etag))


def test_objects_come_back_with_their_metadata(store: ObjectStore) -> None:
    """Bytes and open files are kept whole, and replaced whole."""
    store.check()
    store.put("a/b.txt", b"one", metadata={"records": "1"})
    store.put("a/b.txt", io.BytesIO(b"two!"), metadata={"records": "2"})
    head = store.head("a/b.txt")
    assert (head.size, dict(head.metadata)) == (4, {"records": "2"})
    assert content(store, "a/b.txt") == b"two!"


def test_lines_are_read_one_by_one(store: ObjectStore) -> None:
    """An object can be read without holding it in memory."""
    store.put("lines", b"a\nb\nc\n")
    with store.read("lines") as reading:
        assert reading.file.readline(100) == b"a\n"
        assert list(reading.file) == [b"b\n", b"c\n"]


def test_what_is_missing_is_named(store: ObjectStore) -> None:
    """Reading, looking at and copying what is not there say which object."""
    with pytest.raises(MissingObjectError, match="nowhere"), store.read("nowhere"):
        pass
    with pytest.raises(MissingObjectError, match="nowhere"):
        store.head("nowhere")
    with pytest.raises(MissingObjectError, match="nowhere"):
        store.copy("nowhere", "x")


def test_first_write_happens_once(store: ObjectStore) -> None:
    """With the condition "not there yet" one of two writers wins, and the loser knows."""
    put_if(store, b"first", None)
    with pytest.raises(ConflictError, match=r"owner\.json"):
        put_if(store, b"second", None)
    assert content(store, "x/owner.json") == b"first"


def test_write_over_a_known_object(store: ObjectStore) -> None:
    """With an etag as condition only the exact object that was seen is replaced."""
    first = put_if(store, b"first", None)
    with store.read("x/owner.json") as reading:
        assert reading.etag == first
    second = put_if(store, b"second", first)
    assert second != first
    with pytest.raises(ConflictError):
        put_if(store, b"third", first)
    assert content(store, "x/owner.json") == b"second"
    store.delete(["x/owner.json"])
    with pytest.raises(ConflictError):
        put_if(store, b"third", second)


def test_conditions_are_heeded(store: ObjectStore) -> None:
    """A probe finds that the store heeds conditions, and leaves the object as it was written."""
    store.rehearse("x/leg.json", b"{}")
    store.rehearse("x/leg.json", b"{}")
    assert store.conditional
    assert content(store, "x/leg.json") == b"{}"


def test_copies_may_be_repeated_and_replace(store: ObjectStore) -> None:
    """Copying again, or over something else, ends with the same content; the source stays."""
    store.put("staged", b"content", metadata={"records": "1"})
    store.put("other", b"other content")
    for _ in range(2):
        store.copy("staged", "final")
        store.copy("staged", "other")
    store.delete(["staged"])
    assert content(store, "final") == content(store, "other") == b"content"
    assert list(store.keys("")) == ["final", "other"]


def test_listing_is_in_the_order_of_keys(store: ObjectStore) -> None:
    """Keys come in the order of their bytes, below a prefix that may end inside a name, page by page."""
    names = ["p/a-1", "p/a/x", "p/a/y", "p/b", "p/é", "q/a-1"]
    for name in reversed(names):
        store.put(name, b"", metadata={"records": "0"})
    for page in (1, 2, 1000):
        assert list(store.keys("p/", page=page)) == names[:5]
        assert list(store.keys("p/a", page=page)) == names[:3]
    assert list(store.keys("")) == names
    assert list(store.keys("nowhere/")) == []
    assert list(store.keys("p/b/")) == []


def test_folders_are_listed(store: ObjectStore) -> None:
    """Only the folders right below are listed."""
    for name in ("f/run-1/a/x", "f/run-1/b/x", "f/run-2/x", "f/owner.json"):
        store.put(name, b"")
    assert store.folders("f/") == ["f/run-1/", "f/run-2/"]
    assert store.folders("f/run-1/") == ["f/run-1/a/", "f/run-1/b/"]
    assert store.folders("nowhere/") == []


def test_deleting_is_repeatable(store: ObjectStore, place: Place) -> None:
    """What is gone is as good as deleted, and a cleaned folder leaves nothing, not even itself."""
    names = [f"f/run/token/part-{number}" for number in range(3)]
    for name in names:
        store.put(name, b"x", metadata={"records": "1"})
    store.put("f/stays", b"")
    store.delete([*names[:2], "f/run/token/never"])
    store.delete(names)
    store.clean("f/run/token/")
    store.clean("f/run/token/")
    assert place.names() == ["f/stays"]


@pytest.mark.parametrize("key", ["../x", "a/../../x", "a//b", "x" * 1100])
def test_keys_cannot_leave_the_place(store: ObjectStore, key: str) -> None:
    """Names that would leave the place, or that S3 does not take, never reach it."""
    for call in (lambda: store.put(key, b""), lambda: store.copy("x", key), lambda: store.head(key)):
        with pytest.raises(UsageError):
            call()


def test_clock_of_the_store(store: ObjectStore) -> None:
    """The store's time is a time, near ours in the tests."""
    store.check()
    assert abs(store.now() - time.time()) < 5
