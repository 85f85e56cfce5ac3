"""What happens to a real Elasticsearch, or to an index of it, while it is exported."""

from __future__ import annotations

import json
import threading
import urllib.error
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.connectors.elasticsearch import search
from airflow_batchkit.connectors.object_storage import DeadLetters
from airflow_batchkit.connectors.object_storage.store import MissingObjectError
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    CannotResumeError,
    NoProgressError,
    PermanentError,
    StoppedError,
)
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, ErrorBudget, Timeouts
from tests.support.fault_table import FULL
from tests.support.faulty_export import (
    Export,
    documents,
    meanwhile,
    prepare_index,
    put_documents,
)
from tests.support.http_faults import Asked, Fault, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.s3 import S3Server

pytestmark = [pytest.mark.elasticsearch, pytest.mark.s3]

DOCUMENTS = documents(60)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the source's own pauses short: how long they are is tested where they are made."""
    monkeypatch.setattr(search, "PAUSES", (0.02, 0.05))


@pytest.fixture
def index(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give an index of 60 documents in two shards, of the test's own."""
    name = prepare_index(elasticsearch_server, DOCUMENTS)
    yield name
    elasticsearch_server.request("DELETE", f"/{name}?ignore_unavailable=true")


@pytest.fixture
def export(
    elasticsearch_server: ElasticsearchEndpoint, index: str, s3_server: S3Server, bucket: str
) -> Export:
    """Give an export of the index."""
    return Export(elasticsearch_server, index, DOCUMENTS, s3_server, bucket)


def delete(server: ElasticsearchEndpoint, index: str) -> None:
    """Delete the index."""
    server.request("DELETE", f"/{index}")


def make_anew(server: ElasticsearchEndpoint, index: str) -> None:
    """Delete the index, and make another one of the same name with the same documents."""
    delete(server, index)
    put_documents(server, index, DOCUMENTS)


@pytest.mark.fault("source-gone", at="elasticsearch")
@pytest.mark.parametrize("disturb", [delete, make_anew])
@pytest.mark.parametrize("number", [1, 5] if FULL else [5])
def test_an_index_that_goes_ends_the_run(
    export: Export, disturb: Callable[[ElasticsearchEndpoint, str], None], number: int
) -> None:
    """An index deleted or replaced while it is read: the run fails by its name, and publishes nothing."""
    struck = export.run_struck(meanwhile("/_search", number, lambda: disturb(export.server, export.index)))

    assert isinstance(struck.error, PermanentError), struck.error
    struck.insist_readable(export.index, "while it was read")
    with pytest.raises(MissingObjectError):
        export.place.manifest()


@dataclass(frozen=True)
class Disturbance:
    """Something that is done to the index, and undone half a second later.

    :param method: of the request that does it.
    :param path: below the index.
    :param body: of the request.
    :param undo: method, path and body of the one that undoes it; None: it stays.
    """

    method: str
    path: str
    body: Any = None
    undo: tuple[str, str, Any] | None = None


BLOCK, UNBLOCK = {"index.blocks.read_only_allow_delete": True}, {"index.blocks.read_only_allow_delete": None}
DISTURBANCES = {
    "closed": Disturbance("POST", "/_close", undo=("POST", "/_open?wait_for_active_shards=1", None)),
    "flood stage": Disturbance("PUT", "/_settings", BLOCK, undo=("PUT", "/_settings", UNBLOCK)),
    "flood stage that stays": Disturbance("PUT", "/_settings", BLOCK),
    "another mapping": Disturbance("PUT", "/_mapping", {"properties": {"more": {"type": "keyword"}}}),
    "all caches dropped": Disturbance("POST", "/_cache/clear"),
    "merged": Disturbance("POST", "/_forcemerge?max_num_segments=1"),
}


@pytest.mark.fault("source-gone", at="elasticsearch")
@pytest.mark.parametrize(
    "name",
    [
        "closed",
        pytest.param("flood stage", marks=pytest.mark.fault("disk-full", at="elasticsearch")),
        pytest.param("flood stage that stays", marks=pytest.mark.fault("disk-full", at="elasticsearch")),
        "another mapping",
        "all caches dropped",
        "merged",
    ],
)
@pytest.mark.parametrize("number", [1, 4] if FULL else [4])
def test_an_index_that_is_disturbed_is_read_whole(export: Export, name: str, number: int) -> None:
    """What happens to an index while it is read, and passes, costs no document and doubles none."""
    what = DISTURBANCES[name]
    timers: list[threading.Timer] = []

    def request(method: str, path: str, body: Any) -> None:
        export.server.request(method, f"/{export.index}{path}", body)

    def disturb() -> None:
        request(what.method, what.path, what.body)
        if what.undo is not None:
            timers.append(threading.Timer(0.5, request, what.undo))
            timers[0].start()

    patient = BatchRetry(max_tries=10, first_wait=timedelta(seconds=0.1), max_wait=timedelta(seconds=0.5))
    patiently = replace(export, settings={"batch_retry": patient})
    struck = patiently.run_struck(meanwhile("/_search", number, disturb))
    for timer in timers:
        timer.join(10)

    assert struck.error is None, struck.error
    patiently.insist_exact()


@pytest.mark.fault("snapshot-lost", at="elasticsearch")
@pytest.mark.parametrize("every", [2, 3, 5] if FULL else [3])
def test_points_in_time_that_expire_again_and_again(export: Export, every: int) -> None:
    """Points in time that are gone at every other search: each untouched document comes once all the same."""

    def strike(asked: Asked) -> Fault:
        if asked.resource == "/_search" and asked.number % every == 0:
            try:
                export.server.request("DELETE", "/_pit", {"id": json.loads(asked.body)["pit"]["id"]})
            except urllib.error.HTTPError as error:
                error.close()
        return None

    struck = export.run_struck(strike)

    assert struck.error is None, struck.error
    export.insist_exact()


@pytest.mark.fault("pushback", at="elasticsearch")
def test_a_wait_beyond_reason_is_bounded(export: Export) -> None:
    """A server that asks for years is asked again within a day, and what was done until then is kept."""
    years = Status(429, b"", (("Content-Type", "application/json"), ("Retry-After", "99999999999999999999")))

    def strike(asked: Asked) -> Fault:
        return years if asked.resource == "/_search" and asked.number == 6 else None

    with (
        export.proxies(elasticsearch=strike) as (first, second),
        pytest.raises(StoppedError, match="429") as caught,
    ):
        export.leg(first.url, second.url)
    assert caught.value.resume_after is not None
    assert caught.value.resume_after <= timedelta(days=1).total_seconds()
    export.finish()


@pytest.mark.fault("hung", at="elasticsearch")
def test_a_search_that_hangs_under_a_live_heartbeat(export: Export, caplog: pytest.LogCaptureFixture) -> None:
    """Where no answer comes and no timeout strikes, no progress ends the leg and says where it hangs."""
    hanging = replace(
        export,
        settings={
            "timeouts": Timeouts(no_progress=timedelta(seconds=1.5)),
            "batch": BatchPolicy(max_records=10),
        },
    )

    def strike(asked: Asked) -> Fault:
        return "hang" if asked.resource == "/_search" and asked.number >= 3 else None

    with hanging.proxies(elasticsearch=strike) as (first, second):
        with pytest.raises(BatchkitError) as caught:
            hanging.leg(first.url, second.url)
        assert first.hanging.is_set()
    assert isinstance(caught.value.__cause__ or caught.value, NoProgressError)
    assert "batchkit-read-" in caplog.text
    hanging.finish()


@pytest.mark.fault("checkpoint-unfit", at="elasticsearch")
@pytest.mark.parametrize(
    ("settings", "named"),
    [({"query": {"range": {"n": {"gte": 0}}}}, "query"), ({"source_includes": ["n"]}, "fields")],
)
def test_another_question_is_no_resume(export: Export, settings: dict[str, Any], named: str) -> None:
    """A leg that would ask something else than the one before it is refused, and says what differs."""

    def strike(asked: Asked) -> Fault:
        return Status(500) if asked.resource == "/_search" and asked.number >= 8 else None

    with export.proxies(elasticsearch=strike) as (first, second), pytest.raises(BatchkitError):
        export.leg(first.url, second.url)
    question, export.source_settings = export.source_settings, settings
    with pytest.raises(CannotResumeError, match=named):
        export.leg(export.server.url, export.s3.endpoint_url)
    export.source_settings = question
    export.finish()


def refuse_some(document: dict[str, Any]) -> dict[str, Any]:
    """Refuse every seventh document."""
    if document["n"] % 7 == 0:
        raise ValueError(f"no {document['n']}")
    return document


@pytest.mark.fault("poison", at="elasticsearch")
@pytest.mark.fault("poison", at="s3")
def test_poison_from_an_index_is_kept_byte_for_byte(export: Export) -> None:
    """Documents that the transform refuses lie in the bucket as they were indexed; the others pass."""
    letters = f"s3://{export.bucket}/{export.folder}-letters"
    export.settings = {
        "transform": refuse_some,
        "error_budget": ErrorBudget(max_dead_letters=20),
        "dead_letters": DeadLetters(letters),
    }
    error = export.run(export.server.url, export.s3.endpoint_url)

    assert error is None, error
    refused = {name: body for number, (name, body) in enumerate(DOCUMENTS.items()) if number % 7 == 0}
    assert sorted(export.place.ids()) == sorted(set(DOCUMENTS) - set(refused))
    place = replace(export.place, url=letters)
    lines = [
        line for key in place.names() if key.endswith(".ndjson") for line in place.content(key).splitlines()
    ]
    kept = {json.loads(line)["id"]: line for line in lines}
    assert len(lines) == len(refused)
    assert all(body in kept[name] for name, body in refused.items())
    counts = export.place.manifest()["counts"]
    assert (counts["read"], counts["written"]) == (len(DOCUMENTS), len(DOCUMENTS) - len(refused))


@pytest.mark.fault("few-records", at="elasticsearch")
@pytest.mark.fault("few-records", at="s3")
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20, 30] if FULL else [0, 1, 10])
def test_few_documents_make_a_whole_output(
    elasticsearch_server: ElasticsearchEndpoint, s3_server: S3Server, bucket: str, count: int
) -> None:
    """None, one, a batch, one more or less, two, a page: each once, and no object without a record."""
    texts = documents(count)
    name = prepare_index(elasticsearch_server, texts, shards=1)
    try:
        Export(elasticsearch_server, name, texts, s3_server, bucket).finish()
    finally:
        elasticsearch_server.request("DELETE", f"/{name}")
