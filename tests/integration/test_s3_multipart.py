"""Large objects in parts: only when asked, whole or not at all, and nothing of them stays behind."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from typing_extensions import override

from airflow_batchkit.connectors.object_storage import S3Settings, s3_store
from airflow_batchkit.connectors.object_storage.locations import parse_location
from airflow_batchkit.connectors.object_storage.s3_settings import MIN_PART_BYTES
from airflow_batchkit.connectors.object_storage.store import (
    SHA256,
    Condition,
    ConflictError,
    ObjectStore,
    open_store,
)
from airflow_batchkit.connectors.patience import patiently
from airflow_batchkit.engine.exceptions import PermanentError, TransientError
from tests.support.object_storage import BEGUN, Place, inherited, leg, make_place, publication, write
from tests.support.s3_proxy import Asked, Fault, Judge, Refusal, s3_proxy
from tests.support.versitygw import program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.s3 import S3Server

pytestmark = pytest.mark.s3

SETTINGS = S3Settings(multipart_bytes=MIN_PART_BYTES)
LARGE = random.Random(0).randbytes(2 * MIN_PART_BYTES + 1_000)
OTHER = LARGE[::-1]


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty place in a bucket."""
    return make_place("s3", request)


def kind_of(method: str, path: str) -> str:
    """Name a request of a multipart upload."""
    query = parse_qs(urlsplit(path).query, keep_blank_values=True)
    if method == "PUT" and "partNumber" in query:
        return f"part {query['partNumber'][0]}"
    steps = {("POST", "uploads"): "begin", ("POST", "uploadId"): "complete", ("DELETE", "uploadId"): "abort"}
    return next((step for (verb, name), step in steps.items() if verb == method and name in query), "other")


class Plan:
    """Breaks the first requests of one kind, and counts all.

    :param kind: of the requests, as :func:`kind_of` names it.
    :param fault: what becomes of them.
    :param times: how many of them.
    """

    def __init__(self, kind: str = "", fault: Fault = None, *, times: int = 1) -> None:
        self.counts: Counter[str] = Counter()
        self._kind, self._fault, self._left = kind, fault, times

    def __call__(self, method: str, path: str) -> Fault:
        """Be asked."""
        kind = kind_of(method, path)
        self.counts[kind] += 1
        if kind != self._kind or not self._left:
            return None
        self._left -= 1
        return self._fault


@contextmanager
def opened(
    place: Place, plan: Plan, settings: S3Settings = SETTINGS, *, judge: Judge = lambda *_: None
) -> Iterator[ObjectStore]:
    """Open a place through a proxy."""
    with s3_proxy(place.connections.endpoint_url, plan, judge) as url:
        behind = replace(place, connections=replace(place.connections, endpoint_url=url))
        store = open_store(parse_location(place.url), "aws", behind.context, s3_settings=settings)
        yield store
        store.close()


def put_if(store: ObjectStore, content: bytes, etag: str | None) -> str:
    """Write an object under a condition, as publishing does."""
    metadata = {SHA256: hashlib.sha256(content).hexdigest()}
    return patiently(lambda: store.put("x", content, metadata=metadata, condition=Condition(etag=etag)))


def uploads(server: S3Server, place: Place) -> list[str]:
    """Return the keys of uploads that were begun and neither completed nor aborted."""
    with server.client() as client:
        listed = client.list_multipart_uploads(Bucket=parse_location(place.url).bucket)
        return [found["Key"] for found in listed.get("Uploads", ())]


def test_only_what_is_larger_goes_in_parts(place: Place, s3_server: S3Server) -> None:
    """An object above the limit is sent in three requests and one to complete it; what is smaller in one."""
    plan = Plan()
    with opened(place, plan) as store:
        store.put("large", LARGE, metadata={"records": "1"})
        assert store.head("large").metadata == {"records": "1"}
        assert plan.counts == Counter(
            {"begin": 1, "part 1": 1, "part 2": 1, "part 3": 1, "complete": 1, "other": 1}
        )
        store.put("small", LARGE[:MIN_PART_BYTES])
        assert plan.counts["begin"] == 1
    with opened(place, plan, S3Settings()) as store:
        store.put("large", LARGE)
        assert plan.counts["begin"] == 1
    assert place.content("large") == LARGE
    assert uploads(s3_server, place) == []


@pytest.mark.parametrize("kind", ["part 2", "part 3"])
@pytest.mark.parametrize(
    "fault", ["reset", "apply and reset", Refusal(500, "InternalError"), Refusal(503, "SlowDown")]
)
def test_a_part_that_fails_is_sent_again_alone(place: Place, kind: str, fault: Fault) -> None:
    """One lost answer costs one part, not the whole object."""
    plan = Plan(kind, fault)
    with opened(place, plan) as store:
        store.put("x", LARGE)
    assert (plan.counts["begin"], plan.counts["part 1"], plan.counts[kind], plan.counts["complete"]) == (
        1,
        1,
        2,
        1,
    )
    assert place.content("x") == LARGE


@pytest.mark.parametrize("kind", ["part 2", "complete"])
def test_an_upload_that_fails_is_aborted(place: Place, s3_server: S3Server, kind: str) -> None:
    """When a part, or the last step, fails for good, nothing of the upload stays."""
    plan = Plan(kind, Refusal(500, "InternalError"), times=99)
    with opened(place, plan) as store, pytest.raises(TransientError, match=r"write of .*/x in parts"):
        store.put("x", LARGE)
    assert plan.counts["abort"] == 1
    assert uploads(s3_server, place) == []
    assert place.names() == []


def test_a_failure_stays_the_error_when_aborting_fails_too(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """What went wrong first is what is raised; the rest is in the log."""

    class Both(Plan):
        @override
        def __call__(self, method: str, path: str) -> Fault:
            """Refuse part 2 and the abort."""
            refused = kind_of(method, path) in {"part 2", "abort"}
            return Refusal(403, "AccessDenied") if refused else None

    with opened(place, Both()) as store, pytest.raises(Exception, match="part 2"):
        store.put("x", LARGE)
    assert "s3:AbortMultipartUpload" in caplog.text


def test_a_conflict_at_the_end_begins_anew(place: Place, s3_server: S3Server) -> None:
    """409 means that the upload is void: the next try begins another one, and leaves none behind."""
    plan = Plan("complete", Refusal(409, "ConditionalRequestConflict"))
    with opened(place, plan) as store:
        put_if(store, LARGE, None)
    assert (plan.counts["begin"], plan.counts["complete"], plan.counts["abort"]) == (2, 2, 1)
    assert place.content("x") == LARGE
    assert uploads(s3_server, place) == []


def test_conditions_hold_for_what_comes_in_parts(place: Place, s3_server: S3Server) -> None:
    """The last request carries the condition: what somebody else wrote stays."""
    conditions: list[str | None] = []

    def note(asked: Asked, status: int | None) -> None:
        if status is None and kind_of(asked.method, asked.path) == "complete":
            conditions.append(asked.headers.get("if-none-match") or asked.headers.get("if-match"))

    with opened(place, Plan(), judge=note) as store:
        etag = put_if(store, LARGE, None)
        with pytest.raises(ConflictError):
            put_if(store, OTHER, None)
        assert put_if(store, OTHER, etag) != etag
        assert conditions == ["*", "*", etag]
        if program() is not None:  # moto does not look at If-Match here
            with pytest.raises(ConflictError):
                put_if(store, LARGE, etag)
    assert place.content("x") == OTHER
    assert uploads(s3_server, place) == []


@pytest.mark.fault("answer-lost", at="s3")
def test_a_lost_answer_of_the_last_step_is_not_a_conflict(place: Place) -> None:
    """The object with our own sum is there: the try that wrote it was ours."""
    with opened(place, Plan("complete", "apply and reset")) as store:
        put_if(store, LARGE, None)
    assert place.content("x") == LARGE


def test_what_s3_could_not_copy_is_refused_before_it_is_sent(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object of more than five gigabytes would fail at publication: it is refused when it is written."""
    monkeypatch.setattr(s3_store, "MAX_OBJECT_BYTES", len(LARGE) - 1)
    plan = Plan()
    with opened(place, plan) as store, pytest.raises(PermanentError, match=r"lower BatchPolicy\.max_bytes"):
        store.put("x", LARGE)
    assert plan.counts.total() == 0


@pytest.mark.fault("orphans", at="s3")
def test_publishing_aborts_what_a_killed_leg_left(place: Place, s3_server: S3Server) -> None:
    """SIGKILL in the middle of an upload leaves parts: the next leg removes them, and nobody else's."""
    settings = {"url": place.url, "connections": asdict(place.connections), "multipart_bytes": MIN_PART_BYTES}
    killed = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_upload", json.dumps(settings)], timeout=60, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(uploads(s3_server, place)) == 1
    with s3_server.client() as client:
        client.create_multipart_upload(Bucket=parse_location(place.url).bucket, Key="out/part-foreign.csv")
    sink = place.sink(s3_settings=SETTINGS)
    sink.start(leg("2", inherited=inherited("1", BEGUN)))
    write(sink, 1, ["a"])
    sink.publish(publication(1))
    sink.release()
    assert place.ids() == ["a"]
    assert uploads(s3_server, place) == ["out/part-foreign.csv"]
