"""Answers that are cut, refused or late on their way cost time, and never a document."""

from __future__ import annotations

import json
import secrets
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.elasticsearch.source import ElasticsearchSource
from airflow_batchkit.engine.exceptions import BatchkitError, PushbackError, TransientError, UsageError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.types import Total
from tests.support.elasticsearch_reading import (
    SMALL,
    context,
    make_index,
    opened,
    put_all,
    read_all,
    read_partition,
)
from tests.support.fault_proxy import Fault, Status, fault_proxy
from tests.support.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.elasticsearch import ElasticsearchEndpoint

pytestmark = pytest.mark.elasticsearch

JSON = (("Content-Type", "application/json"),)
PARTIAL = Status(
    200,
    json.dumps(
        {
            "pit_id": "x",
            "took": 1,
            "timed_out": True,
            "_shards": {"total": 1, "successful": 1, "failed": 0},
            "hits": {"hits": []},
        }
    ).encode(),
    JSON,
)
REJECTED = Status(
    429,
    json.dumps({"error": {"type": "es_rejected_execution_exception", "reason": "queue full"}}).encode(),
    (*JSON, ("Retry-After", "0.1")),
)


@pytest.fixture
def index(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give an index of 400 documents."""
    name = f"faults-{secrets.token_hex(4)}"
    make_index(elasticsearch_server, name)
    put_all(elasticsearch_server, name, {f"id-{number}": {"n": number} for number in range(400)})
    yield name
    elasticsearch_server.request("DELETE", f"/{name}?ignore_unavailable=true")


@pytest.mark.parametrize(
    "fault",
    ["reset", "truncate", Status(502), Status(503), REJECTED, PARTIAL],
    ids=["reset", "cut", "502", "503", "rejected", "partial"],
)
def test_a_broken_answer_is_asked_for_again(
    elasticsearch_server: ElasticsearchEndpoint, index: str, fault: Fault
) -> None:
    """Two broken answers within a window: the same page again, from the same snapshot, exactly once."""

    def plan(path: str, number: int) -> Fault:
        return fault if path == "/_search" and number in {3, 7} else None

    with (
        fault_proxy(elasticsearch_server.url, plan) as (url, proxy),
        opened(ElasticsearchSource(index=index), url) as source,
    ):
        reading = read_partition(source, 0, SMALL)
        assert source.state["snapshots"] == 1
        assert proxy.count("POST", f"/{index}/_pit") == 1

    assert sorted(record.id for record in reading.records) == sorted(f"id-{n}" for n in range(400))
    assert reading.broken_off == 0


@pytest.mark.fault("pushback", at="elasticsearch")
def test_a_server_that_stays_broken_is_left_to_the_engine(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """A server that asks for a long wait is asked once, and the engine told how long."""
    refused = Status(429, REJECTED.body, (*JSON, ("Retry-After", "60")))

    def plan(path: str, number: int) -> Fault:
        return refused if path == "/_search" and number >= 3 else None

    with (
        fault_proxy(elasticsearch_server.url, plan) as (url, proxy),
        opened(ElasticsearchSource(index=index), url) as source,
    ):
        with pytest.raises(PushbackError, match="es_rejected_execution_exception: queue full") as caught:
            list(source.read(0, None, SMALL))
        assert proxy.count("POST", "/_search") == 3, "the client retried by itself"
    assert caught.value.retry_after == 60


def test_closing_ends_a_read_that_hangs(elasticsearch_server: ElasticsearchEndpoint, index: str) -> None:
    """A reader that waits for an answer that never comes gets an error at once when the source is closed."""

    def plan(path: str, number: int) -> Fault:
        return "hang" if path == "/_search" and number == 2 else None

    ended: list[BaseException] = []

    with fault_proxy(elasticsearch_server.url, plan) as (url, proxy):
        source = ElasticsearchSource(index=index).open(context(url))

        def read() -> None:
            try:
                list(source.read(0, None, SMALL))
            except BatchkitError as error:
                ended.append(error)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        assert proxy.hanging.wait(20)
        source.close()
        reader.join(10)
        assert not reader.is_alive()

    assert isinstance(ended[0], TransientError)


def test_the_points_in_time_are_given_back(elasticsearch_server: ElasticsearchEndpoint, index: str) -> None:
    """Neither a partition that was read or given up nor a closed source leaves a snapshot open."""

    def contexts() -> int:
        stats = elasticsearch_server.request("GET", f"/{index}/_stats/search")
        return int(stats["indices"][index]["total"]["search"]["open_contexts"])

    with opened(ElasticsearchSource(index=index), elasticsearch_server.url) as source:
        read_all(source)
        assert contexts() == 0
        reader = source.read(0, None, SMALL)
        next(reader)
        assert contexts() == 1
        del reader
        assert contexts() == 0
        reader = source.read(0, None, SMALL)
        next(reader)
    assert contexts() == 0


def test_a_redirect_is_not_followed(elasticsearch_server: ElasticsearchEndpoint, index: str) -> None:
    """A server that sends us elsewhere gets no request there."""

    def plan(_path: str, _number: int) -> Fault:
        return Status(302, b"", (("Location", f"{elasticsearch_server.url}/secret"), *JSON))

    with (
        fault_proxy(elasticsearch_server.url, plan) as (url, proxy),
        pytest.raises(BatchkitError, match="302"),
        opened(ElasticsearchSource(index=index), url),
    ):
        pass
    assert proxy.count("GET", "/secret") == 0


def test_a_server_that_is_not_there_is_a_transient_trouble() -> None:
    """A refused connection is one line that names the server, and may work later."""
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(TransientError, match=f"no answer from {url}: .*refused") as caught:
        ElasticsearchSource(index="orders").open(context(url))
    assert "\n" not in str(caught.value)


@pytest.mark.fault("slow", at="elasticsearch")
def test_a_server_that_does_not_answer_is_given_up(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """An answer that does not come within the read timeout is a transient error, not a wait for ever."""
    short = Timeouts(read=timedelta(seconds=0.3), connect=timedelta(seconds=1))
    with (
        fault_proxy(elasticsearch_server.url, lambda *_: "hang") as (url, _),
        pytest.raises(TransientError, match="ConnectionTimeout"),
    ):
        ElasticsearchSource(index=index).open(context(url, timeouts=short))


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "check the connection's API key"),
        (403, "grant the missing privilege"),
    ],
)
def test_missing_rights_are_one_clear_line(
    elasticsearch_server: ElasticsearchEndpoint, index: str, status: int, message: str
) -> None:
    """Wrong credentials and missing privileges are usage errors with the server's own reason."""
    reason = "action [indices:admin/shards/search_shards] is unauthorized, granted by [view_index_metadata]"
    refused = Status(
        status, json.dumps({"error": {"type": "security_exception", "reason": reason}}).encode(), JSON
    )

    def plan(path: str, _number: int) -> Fault:
        return refused if path == f"/{index}/_search_shards" else None

    with (
        fault_proxy(elasticsearch_server.url, plan) as (url, _),
        pytest.raises(UsageError, match=message) as caught,
    ):
        ElasticsearchSource(index=index).open(context(url))
    assert reason in str(caught.value)


def test_without_the_right_to_refresh_a_shard_is_one_window(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """Where the refresh is forbidden no bound is certain: a shard is read as one window, and whole."""
    refused = Status(403, b'{"error":{"type":"security_exception","reason":"no"}}', JSON)

    def plan(path: str, _number: int) -> Fault:
        return refused if path.endswith("/_refresh") else None

    with (
        fault_proxy(elasticsearch_server.url, plan) as (url, _),
        opened(ElasticsearchSource(index=index), url) as source,
    ):
        reading = read_partition(source, 0, SMALL)

    assert len(reading.records) == 400
    assert len(reading.cursors) == 1


@pytest.mark.parametrize("statistics", [True, False], ids=["", "no statistics"])
def test_a_count_that_takes_too_long_is_estimated(
    elasticsearch_server: ElasticsearchEndpoint,
    index: str,
    statistics: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The run begins with an estimate, called so, or with none; it is not held up by a number to look at."""

    def plan(path: str, _number: int) -> Fault:
        if path == f"/{index}/_count":
            return Status(503, b"", JSON)
        return Status(403, b"{}", JSON) if "/_stats" in path and not statistics else None

    source = ElasticsearchSource(index=index, query={"range": {"n": {"lt": 10}}})
    with fault_proxy(elasticsearch_server.url, plan) as (url, _), opened(source, url) as found:
        assert found.total == (Total(records=400, exact=False) if statistics else None)
        assert len(read_all(found)) == 10
    told = "that of all documents" if statistics else "not known how many documents match"
    assert told in caplog.text
