"""Answers of an S3 API that cannot be about what was asked, or do not come to an end: never believed."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_batchkit.connectors.object_storage.locations import parse_location
from airflow_batchkit.connectors.object_storage.s3_store import S3Store
from airflow_batchkit.connectors.object_storage.store import SHA256, ObjectStore
from airflow_batchkit.engine.exceptions import TransientError
from airflow_batchkit.engine.policies import Timeouts
from tests.support.http_faults import Asked, Fault, Plan, Status, http_proxy
from tests.support.object_storage import Place, leg, make_place, publication, write

pytestmark = pytest.mark.s3

LIMITS = Timeouts(read=timedelta(seconds=2), request=timedelta(seconds=0.5), batch=timedelta(seconds=0.5))


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty place in a bucket."""
    return make_place("s3", request)


@contextmanager
def broken(place: Place, plan: Plan, *, timeouts: Timeouts | None = None) -> Iterator[ObjectStore]:
    """Open a place through a proxy that breaks requests."""
    limits = timeouts or Timeouts()
    with http_proxy(place.connections.endpoint_url, plan) as proxy:
        connections = replace(place.connections, endpoint_url=proxy.url)
        store = S3Store(
            parse_location(place.url),
            lambda: connections.client("s3", "", timeouts=limits),
            timeouts=limits,
            log=place.context.log,
        )
        try:
            yield store
        finally:
            store.close()


def only(method: str, fault: Fault, *, number: int = 1) -> Plan:
    """Break one request of a method, the first unless told."""
    seen = itertools.count(1)
    return lambda asked: fault if asked.method == method and next(seen) == number else None


def put(store: ObjectStore, key: str, content: bytes) -> str:
    """Write an object with the sum of its content."""
    return store.put(key, content, metadata={SHA256: hashlib.sha256(content).hexdigest()})


def read(store: ObjectStore) -> None:
    """Read an object."""
    with store.read("x") as reading:
        assert reading.file.read() == b"content"


def head(store: ObjectStore) -> None:
    """Look at an object."""
    assert store.head("x").size == 7


def listing(store: ObjectStore) -> None:
    """List everything."""
    assert list(store.keys("")) == ["x"]


def copy(store: ObjectStore) -> None:
    """Copy an object."""
    store.copy("x", "y")


Step = Callable[[ObjectStore], None]
OF_A_WRITE = Status(200, b"", (("ETag", '"e"'),))
OF_ANOTHER_FOLDER = Status(
    200,
    b"<ListBucketResult><Name>b</Name><Prefix>elsewhere/</Prefix><IsTruncated>false</IsTruncated>"
    b"</ListBucketResult>",
    (("Content-Type", "application/xml"),),
)


@pytest.mark.parametrize(
    ("method", "step", "fault"),
    [
        ("GET", read, "truncate without length"),
        ("GET", read, OF_A_WRITE),
        ("GET", listing, "truncate without length"),
        ("GET", listing, OF_A_WRITE),
        ("GET", listing, OF_ANOTHER_FOLDER),
        ("GET", listing, Status(200)),
        ("HEAD", head, "truncate in chunks"),
        ("HEAD", head, OF_A_WRITE),
        ("PUT", copy, "truncate without length"),
        ("PUT", copy, Status(412, b"", ())),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_no_whole_answer_to_this_is_transient(
    place: Place, method: str, step: Step, fault: Fault
) -> None:
    """Cut off, a proxy's page, or another request's: one line that says so, and the next try succeeds."""
    put(place.store(), "x", b"content")
    with broken(place, only(method, fault)) as store:
        with pytest.raises(TransientError, match=r"may work when tried again|no answer") as raised:
            step(store)
        assert "\n" not in str(raised.value)
        step(store)


@pytest.mark.fault("swapped", at="s3")
def test_a_write_that_was_answered_for_another_is_not_believed(place: Place) -> None:
    """The answer names the sum of what was stored: another one, or none any more, is another write's."""
    with broken(place, only("PUT", "previous", number=2)) as store:
        put(store, "x", b"one")
        with pytest.raises(TransientError, match="another request"):
            put(store, "y", b"two")
    with broken(place, only("PUT", OF_A_WRITE, number=2)) as store:
        put(store, "x", b"one")
        with pytest.raises(TransientError, match="another request"):
            put(store, "y", b"two")


@pytest.mark.fault("swapped", at="s3")
def test_one_answer_alone_does_not_make_a_store_unconditional(place: Place) -> None:
    """A conditional write that seems to have been let through is tried again before the store is doubted."""
    with broken(place, only("PUT", "previous", number=2)) as store:
        store.rehearse("leg.json", b"{}")
        assert store.conditional


@pytest.mark.fault("slow", at="s3")
@pytest.mark.parametrize(("method", "step"), [("GET", listing), ("PUT", copy)])
def test_an_answer_that_trickles_has_a_time_limit(place: Place, method: str, step: Step) -> None:
    """Each byte comes within the read timeout, and still the request ends at its limit."""
    put(place.store(), "x", b"content")
    started = time.monotonic()
    with (
        broken(place, only(method, "trickle"), timeouts=LIMITS) as store,
        pytest.raises(TransientError, match=r"no whole answer came in 0\.5 s"),
    ):
        step(store)
    assert time.monotonic() - started < 5


@pytest.mark.fault("swapped", at="s3")
def test_a_copy_that_was_not_made_is_made(place: Place) -> None:
    """Where a store says that it has copied and has not, the manifest does not name what is not there."""
    copied = Status(
        200, b"<CopyObjectResult><ETag>e</ETag></CopyObjectResult>", (("Content-Type", "application/xml"),)
    )
    denied: list[str] = []

    def plan(asked: Asked) -> Fault:
        if "x-amz-copy-source" not in asked.headers or "/_batchkit/" in asked.path or len(denied) == 2:
            return None
        denied.append(asked.path)
        return copied

    with http_proxy(place.connections.endpoint_url, plan) as proxy:
        behind = replace(place, connections=replace(place.connections, endpoint_url=proxy.url))
        sink = behind.sink()
        sink.start(leg("1"))
        write(sink, 1, ["a", "b"])
        write(sink, 2, ["c"])
        sink.publish(publication(3))
        sink.close()
    assert len(denied) == 2
    assert place.ids() == ["a", "b", "c"]
