"""What does not fit what is on the server is refused in one clear line, before anything is read."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.connectors.elasticsearch.source import ElasticsearchSource
from airflow_batchkit.engine.exceptions import TransientError, UsageError
from tests.support.elasticsearch_reading import context, make_index, put_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.elasticsearch import ElasticsearchEndpoint

pytestmark = pytest.mark.elasticsearch


@pytest.fixture
def index(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give the name of an index of the test's own, which the test makes."""
    name = f"refused-{secrets.token_hex(4)}"
    yield name
    elasticsearch_server.request("DELETE", f"/{name}?ignore_unavailable=true")


def refusal(server: ElasticsearchEndpoint, source: ElasticsearchSource, **settings: Any) -> str:
    """Open a source that cannot be opened; return why."""
    with pytest.raises(UsageError) as caught:
        source.open(context(server.url, **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_index_is_refused(elasticsearch_server: ElasticsearchEndpoint, index: str) -> None:
    """The message names the index and the server."""
    told = refusal(elasticsearch_server, ElasticsearchSource(index=index))
    assert f"index '{index}': there is no such index at {elasticsearch_server.url}" in told


def test_a_closed_index_is_refused(elasticsearch_server: ElasticsearchEndpoint, index: str) -> None:
    """The message says to open it."""
    make_index(elasticsearch_server, index)
    elasticsearch_server.request("POST", f"/{index}/_close")
    assert "is closed: open it" in refusal(elasticsearch_server, ElasticsearchSource(index=index))


def test_an_index_without_source_is_refused(elasticsearch_server: ElasticsearchEndpoint, index: str) -> None:
    """Documents that the server does not keep cannot be exported."""
    elasticsearch_server.request("PUT", f"/{index}", {"mappings": {"_source": {"enabled": False}}})
    assert "stores no _source" in refusal(elasticsearch_server, ElasticsearchSource(index=index))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"mtch": {"n": 1}}, "unknown query [mtch] did you mean [match]?"),
        ({"match_all": {}, "term": {"n": 1}}, "malformed query"),
        ({"range": {"at": {"gte": "the day before"}}}, "failed to parse date field [the day before]"),
        ({"range": {"n": {"gte": "x"}}}, "For input string"),
    ],
)
def test_a_malformed_query_is_refused(
    elasticsearch_server: ElasticsearchEndpoint, index: str, query: dict[str, Any], message: str
) -> None:
    """The server's own reason says what is wrong in the query."""
    make_index(elasticsearch_server, index)
    put_all(elasticsearch_server, index, {"1": {"n": 1, "at": "2026-01-01"}})
    assert message in refusal(elasticsearch_server, ElasticsearchSource(index=index, query=query))


@pytest.mark.parametrize(
    "start_at", ["yesterday", "2026-01-01", '{"seq": 1}', '{"seq_no": "1"}', '{"seq_no"']
)
def test_a_start_that_means_nothing_is_refused(
    elasticsearch_server: ElasticsearchEndpoint, index: str, start_at: str
) -> None:
    """A partial run starts at a cursor, or at a date where the source has a date field, and nowhere else."""
    told = refusal(elasticsearch_server, ElasticsearchSource(index=index), start_at=start_at)
    assert "start_at=" in told


def test_a_shard_that_is_not_available_is_waited_for(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """With no copy of a shard the run fails as transient: a part of an index is never taken for the whole."""
    settings = {
        "number_of_shards": 2,
        "number_of_replicas": 0,
        "routing.allocation.require._name": "nobody",
    }
    elasticsearch_server.request("PUT", f"/{index}?wait_for_active_shards=0", {"settings": settings})
    with pytest.raises(TransientError, match="2 of 2 shards are not available"):
        ElasticsearchSource(index=index).open(context(elasticsearch_server.url))
