"""What an S3 API may answer, by accident or on purpose, and what becomes of it."""

from __future__ import annotations

import hashlib
import logging
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from typing_extensions import override

from airflow_batchkit.connectors.object_storage.locations import parse_location
from airflow_batchkit.connectors.object_storage.s3_store import S3Store
from airflow_batchkit.connectors.object_storage.store import (
    SHA256,
    Condition,
    ConflictError,
    MissingObjectError,
    ObjectStore,
)
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    PermanentError,
    PushbackError,
    TransientError,
    UsageError,
)
from airflow_batchkit.engine.policies import Timeouts
from tests.support.object_storage import Place, S3Connections, make_place
from tests.support.s3_proxy import Fault, Plan, Refusal, s3_proxy
from tests.support.versitygw import program

pytestmark = pytest.mark.s3
unsigned = pytest.mark.skipif(program() is not None, reason="changed requests have no valid signature")


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty place in a bucket."""
    return make_place("s3", request)


@contextmanager
def broken(place: Place, plan: Plan) -> Iterator[ObjectStore]:
    """Open a place through a proxy that breaks answers."""
    with s3_proxy(place.connections.endpoint_url, plan) as url:
        store = replace(place, connections=replace(place.connections, endpoint_url=url)).store()
        try:
            yield store
        finally:
            store.close()


def first(method: str, fault: Fault, *, times: int = 1) -> Plan:
    """Break the first requests of a method."""
    left = [times]

    def plan(asked: str, path: str) -> Fault:
        del path
        if asked == method and left[0]:
            left[0] -= 1
            return fault
        return None

    return plan


def put_if(store: ObjectStore, text: bytes, etag: str | None = None) -> str:
    """Write one object under a condition."""
    metadata = {SHA256: hashlib.sha256(text).hexdigest()}
    return store.put("owner.json", text, metadata=metadata, condition=Condition(etag=etag))


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (Refusal(503, "SlowDown"), PushbackError, "slow down"),
        (Refusal(503, "ServiceUnavailable"), PushbackError, "slow down"),
        (Refusal(429, "TooManyRequests"), PushbackError, "slow down"),
        (Refusal(500, "InternalError"), TransientError, "may work when tried again"),
        (Refusal(502, ""), TransientError, "may work when tried again"),
        (Refusal(409, "ConditionalRequestConflict"), TransientError, "may work when tried again"),
        (Refusal(400, "RequestTimeout"), TransientError, "may work when tried again"),
        (Refusal(403, "AccessDenied"), UsageError, r"allow s3:PutObject on arn:aws:s3:::.*/out/\*"),
        (Refusal(403, "InvalidAccessKeyId"), UsageError, "mend the connection"),
        (Refusal(404, "NoSuchBucket"), UsageError, "no such bucket"),
        (Refusal(507, "InsufficientStorage"), PermanentError, "the store is full"),
        (Refusal(400, "EntityTooLarge"), PermanentError, "lower BatchPolicy.max_bytes"),
        (Refusal(400, "SomethingNew"), PermanentError, "made up by a test"),
        ("reset", TransientError, "no answer"),
    ],
)
def test_answers_are_classed(place: Place, fault: Fault, kind: type[Exception], said: str) -> None:
    """Each answer is one of ours, in one line: what was done, to what, what to do next."""
    with broken(place, first("PUT", fault)) as store, pytest.raises(kind, match=said) as raised:
        store.put("part-1", b"x")
    assert type(raised.value) is kind
    assert "part-1" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("switched_off", [False, True])
def test_store_gets_the_sha256_to_compare_with(
    place: Place, switched_off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store compares what arrives with what the manifest will say, unless checksums are switched off."""
    if switched_off:
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    digest = hashlib.sha256(b"x")
    sent: list[bytes | str | None] = []

    def note(request: Any, **_: Any) -> None:
        sent.append(request.headers.get("x-amz-checksum-sha256"))

    def connect() -> Any:
        client = place.connections.client("s3", "", timeouts=Timeouts())
        client.meta.events.register("before-send.s3.PutObject", note)
        return client

    with closing(S3Store(parse_location(place.url), connect, log=logging.getLogger(__name__))) as store:
        store.put("part-1", b"x", metadata={SHA256: digest.hexdigest()})
        assert store.head("part-1").size == 1
    assert sent == [None if switched_off else b64encode(digest.digest())]


def test_store_says_how_long_to_wait(place: Place) -> None:
    """``Retry-After`` reaches whoever plans the next try."""
    fault = Refusal(503, "SlowDown", (("Retry-After", "7"),))
    with broken(place, first("PUT", fault)) as store, pytest.raises(PushbackError) as raised:
        store.put("part-1", b"x")
    assert raised.value.retry_after == 7.0


def test_no_server_is_transient(place: Place) -> None:
    """A refused connection may work later; it is told within the connect timeout."""
    nowhere = replace(place, connections=S3Connections(endpoint_url="http://127.0.0.1:9"))
    with pytest.raises(TransientError, match="no answer"):
        nowhere.store().check()


def test_missing_bucket_is_found_when_opened(place: Place) -> None:
    """A wrong bucket is found before any work."""
    with pytest.raises(UsageError, match="no such bucket"):
        replace(place, url="s3://no-such-bucket/out").store().check()


@pytest.mark.fault("server-error", at="s3")
def test_error_inside_a_good_answer_is_an_error(place: Place) -> None:
    """A copy that answers 200 with an error in the body has failed (S3 does that)."""

    def plan(method: str, path: str) -> Fault:
        return Refusal(200, "InternalError") if method == "PUT" and path.endswith("final") else None

    with broken(place, plan) as store:
        store.put("staged", b"x")
        with pytest.raises(TransientError):
            store.copy("staged", "final")


@pytest.mark.fault("answer-lost", at="s3")
def test_lost_answer_of_a_first_write_is_not_a_conflict(place: Place) -> None:
    """A conditional write that was applied while its answer got lost succeeds when it is tried again."""
    with broken(place, first("PUT", "apply and reset")) as store:
        with pytest.raises(TransientError):
            put_if(store, b"mine")
        etag = put_if(store, b"mine")
        assert put_if(store, b"mine again", etag)


@pytest.mark.fault("answer-lost", at="s3")
def test_lost_answer_of_a_replacement_is_not_a_conflict(place: Place) -> None:
    """The same holds where the condition is an etag, which the first try has changed."""
    etag = put_if(place.store(), b"old")
    with broken(place, first("PUT", "apply and reset")) as store:
        with pytest.raises(TransientError):
            put_if(store, b"new", etag)
        put_if(store, b"new", etag)
        with pytest.raises(ConflictError):
            put_if(store, b"other", etag)


def test_somebody_elses_write_is_a_conflict(place: Place) -> None:
    """Only the very same content counts as our own write."""
    put_if(place.store(), b"theirs")
    with pytest.raises(ConflictError, match="somebody else"):
        put_if(place.store(), b"mine")


@pytest.mark.fault("credentials", at="s3")
@pytest.mark.parametrize("times", [1, 2])
def test_expired_credentials_make_a_new_client_once(place: Place, times: int) -> None:
    """An expired token is answered with a new client; when that has none either, the run comes back later."""
    made: list[object] = []

    class Counting(S3Connections):
        @override
        def client(self, kind: str, conn_id: str, *, timeouts: Timeouts) -> Any:
            made.append(kind)
            return super().client(kind, conn_id, timeouts=timeouts)

    with s3_proxy(
        place.connections.endpoint_url, first("PUT", Refusal(400, "ExpiredToken"), times=times)
    ) as url:
        store = replace(place, connections=Counting(endpoint_url=url)).store()
        if times == 1:
            store.put("part-1", b"x")
        else:
            with pytest.raises(TransientError, match="ExpiredToken"):
                store.put("part-1", b"x")
        assert len(made) == 2
        store.close()


@unsigned
@pytest.mark.parametrize("fault", ["ignore conditions", Refusal(501, "NotImplemented")])
def test_store_without_conditions_is_said_and_checked_as_far_as_possible(
    place: Place, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    """A store that ignores conditions is found out and said; it is looked at before each write instead."""
    conditional = [0]

    def plan(method: str, path: str) -> Fault:
        del path
        if method != "PUT":
            return None
        if fault == "ignore conditions":
            return fault
        conditional[0] += 1
        return fault if conditional[0] == 2 else None

    with caplog.at_level(logging.WARNING), broken(place, plan) as store:
        store.rehearse("leg.json", b"{}")
        assert not store.conditional
        assert "ignores conditional writes" in caplog.text
        etag = put_if(store, b"first")
        with pytest.raises(ConflictError):
            put_if(store, b"second")
        put_if(store, b"second", etag)


def test_part_of_a_deletion_that_fails_is_raised(place: Place) -> None:
    """A deletion of many that answers 200 may still have refused some."""
    error = b"<Error><Key>k</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
    body = b"<DeleteResult>%b</DeleteResult>" % error

    class Refused(Refusal):
        @property
        @override
        def body(self) -> bytes:
            return body

    with (
        broken(place, first("POST", Refused(200, ""))) as store,
        pytest.raises(UsageError, match="AccessDenied"),
    ):
        store.delete(["part-1", "part-2"])


def test_time_is_the_stores(place: Place) -> None:
    """Leases are compared by the store's clock, not by this machine's."""
    late = ("Date", "Mon, 01 Jan 2035 00:00:00 GMT")

    def plan(method: str, path: str) -> Fault:
        del method, path
        return Refusal(404, "NoSuchKey", (late,))

    with broken(place, plan) as store:
        with pytest.raises(MissingObjectError):
            store.head("x")
        assert store.now() > 2_000_000_000


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_jump_of_this_machines_clock_is_none_of_the_stores(
    place: Place, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """Between two answers of the store, too, its time goes on as time does."""
    store = place.store()
    store.put("x", b"")
    real = time.time
    monkeypatch.setattr(
        "airflow_batchkit.connectors.object_storage.s3_calls.time.time", lambda: real() + jump
    )
    assert abs(store.now() - real()) < 5


def test_more_than_one_page(place: Place) -> None:
    """More than a thousand objects are listed and deleted whole."""
    store = place.store()
    for number in range(12):
        store.put(f"p/{number:04d}", b"")
    assert len(list(store.keys("p/", page=5))) == 12
    store.delete(f"p/{number:04d}" for number in range(1005))
    assert list(store.keys("p/")) == []


def test_errors_survive_without_their_cause(place: Place) -> None:
    """Whatever the API says, what is raised is one of our errors."""
    with broken(place, first("GET", Refusal(418, "Teapot"))) as store, pytest.raises(BatchkitError):
        list(store.keys(""))
