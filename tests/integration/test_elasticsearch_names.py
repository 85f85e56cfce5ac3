"""Aliases, data streams, patterns and lists: exactly the documents that a search by the same names finds."""

from __future__ import annotations

import json
import logging
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.connectors.elasticsearch.source import ElasticsearchSource
from airflow_batchkit.engine.exceptions import TransientError, UsageError
from airflow_batchkit.engine.types import Total
from tests.support.elasticsearch_reading import NOW, context, make_index, opened, put_all, read_all
from tests.support.fault_proxy import Fault, Status, fault_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.support.elasticsearch import ElasticsearchEndpoint

pytestmark = pytest.mark.elasticsearch

JSON = (("Content-Type", "application/json"),)
REGIONS = ("eu", "us", "asia")
ALIASES: Mapping[str, Mapping[str, Any]] = {
    "all": {},
    "eu": {"filter": {"term": {"region": "eu"}}},
    "us": {"filter": {"term": {"region": "us"}}},
    "routed": {"search_routing": "b,c"},
    "both": {"filter": {"term": {"region": "us"}}, "routing": "b"},
}


@pytest.fixture
def name(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give a beginning of names that no other test uses; everything below it is removed afterwards."""
    name = f"names-{secrets.token_hex(4)}"
    yield name
    found = elasticsearch_server.request("GET", f"/_resolve/index/{name}*?expand_wildcards=all")
    for index in found["indices"]:
        elasticsearch_server.request("DELETE", f"/{index['name']}")


@pytest.fixture
def orders(elasticsearch_server: ElasticsearchEndpoint, name: str) -> str:
    """Fill two indices of four shards, with routing and aliases; return how their names begin."""
    for number in (1, 2):
        index = f"{name}-{number}"
        body = {
            "settings": {"number_of_shards": 4, "number_of_replicas": 0},
            "mappings": {"properties": {"region": {"type": "keyword"}, "at": {"type": "date"}}},
            "aliases": {f"{name}-{alias}": settings for alias, settings in ALIASES.items()},
        }
        elasticsearch_server.request("PUT", f"/{index}", body)
        lines = b"".join(
            _bulk(f"{number}-{document}", document, routing="abcdef"[document % 6]) for document in range(300)
        )
        elasticsearch_server.request("POST", f"/{index}/_bulk?refresh=true", lines)
    return name


def _bulk(id_: str, number: int, *, routing: str | None = None, action: str = "index") -> bytes:
    document = {
        "n": number,
        "region": REGIONS[number % 3],
        "at": (NOW - timedelta(hours=number)).isoformat(),
        "@timestamp": (NOW - timedelta(hours=number)).isoformat(),
    }
    meta = {"_id": id_, **({"routing": routing} if routing else {})}
    return f"{json.dumps({action: meta})}\n{json.dumps(document)}\n".encode()


def found_by_search(server: ElasticsearchEndpoint, names: Sequence[str], **body: Any) -> set[tuple[str, str]]:
    """Return index and id of all documents that one search by these names finds."""
    answer = server.request("POST", f"/{','.join(names)}/_search?size=10000", body)
    return {(hit["_index"], hit["_id"]) for hit in answer["hits"]["hits"]}


@pytest.mark.parametrize(
    "endings",
    [
        ["all"],
        ["eu"],
        ["routed"],
        ["both"],
        ["eu", "us"],
        ["eu", "all"],
        ["eu", "1"],
        ["routed", "eu"],
        ["routed", "both"],
        ["*"],
        ["e*"],
        ["*", "-2"],
        ["1", "2"],
        ["2", "routed"],
    ],
    ids="+".join,
)
def test_what_an_alias_hides_stays_hidden(
    elasticsearch_server: ElasticsearchEndpoint, orders: str, endings: list[str]
) -> None:
    """Filters and search routings hold, one by one and together, as the server's own search has them."""
    names = [f"-{orders}{text}" if text.startswith("-") else f"{orders}-{text}" for text in endings]
    expected = found_by_search(elasticsearch_server, names)
    with opened(ElasticsearchSource(index=names), elasticsearch_server.url) as source:
        records = read_all(source)
        assert source.total == Total(records=len(expected))
    assert len(records) == len(expected)
    assert {(record.index or f"{orders}-1", record.id) for record in records} == expected
    assert 0 < len(expected) <= 600


def test_now_in_the_filter_of_an_alias_is_the_runs_start(
    elasticsearch_server: ElasticsearchEndpoint, orders: str
) -> None:
    """Date math that an alias holds means the run's one instant, not the server's clock."""
    alias = {"filter": {"range": {"at": {"gte": "now-2d/d"}}}}
    elasticsearch_server.request("PUT", f"/{orders}-1/_alias/{orders}-recent", alias)
    since = (NOW - timedelta(days=2)).replace(hour=0, minute=0, second=0, microsecond=0)
    fixed = {"range": {"at": {"gte": since.isoformat()}}}
    expected = found_by_search(elasticsearch_server, [f"{orders}-1"], query=fixed)
    with opened(ElasticsearchSource(index=f"{orders}-recent"), elasticsearch_server.url) as source:
        records = read_all(source)
    assert {record.id for record in records} == {id_ for _, id_ in expected}
    assert len(records) == 59


def test_an_alias_of_one_index_is_as_the_index(
    elasticsearch_server: ElasticsearchEndpoint, name: str
) -> None:
    """Lines hold no ``_index`` where an alias stands for one index: the usual way to swap indices."""
    make_index(elasticsearch_server, f"{name}-v7")
    elasticsearch_server.request("PUT", f"/{name}-v7/_alias/{name}")
    put_all(elasticsearch_server, f"{name}-v7", {"1": {"n": 1}})
    with opened(ElasticsearchSource(index=name), elasticsearch_server.url) as source:
        assert source.partitions == [f"{name}-v7.0"]
        assert [record.index for record in read_all(source)] == [None]


def test_a_pattern_always_names_the_index(elasticsearch_server: ElasticsearchEndpoint, name: str) -> None:
    """What may be several indices another day has the same form of lines every day."""
    make_index(elasticsearch_server, f"{name}-1")
    put_all(elasticsearch_server, f"{name}-1", {"1": {"n": 1}})
    with opened(ElasticsearchSource(index=f"{name}-*"), elasticsearch_server.url) as source:
        assert [record.index for record in read_all(source)] == [f"{name}-1"]


@pytest.fixture
def data_stream(elasticsearch_server: ElasticsearchEndpoint, name: str) -> Iterator[str]:
    """Make a data stream of two generations with 40 documents."""
    stream = f"{name}-logs"
    template = {
        "index_patterns": [f"{stream}*"],
        "data_stream": {},
        "template": {"settings": {"number_of_replicas": 0}},
    }
    elasticsearch_server.request("PUT", f"/_index_template/{name}", template)
    for generation in (0, 1):
        if generation:
            elasticsearch_server.request("POST", f"/{stream}/_rollover")
        lines = b"".join(_bulk(f"{generation}-{n}", n, action="create") for n in range(20))
        elasticsearch_server.request("POST", f"/{stream}/_bulk?refresh=true", lines)
    yield stream
    elasticsearch_server.request("POST", f"/{stream}/_rollover")
    found = elasticsearch_server.request("GET", f"/_resolve/index/{stream}")
    # The minimal server has no request that deletes a data stream: what may go, goes.
    for backing in found["data_streams"][0]["backing_indices"][:-1]:
        elasticsearch_server.request("DELETE", f"/{backing}")


def test_a_data_stream_is_all_its_backing_indices(
    elasticsearch_server: ElasticsearchEndpoint, data_stream: str
) -> None:
    """Every backing index is read, and each line names its own."""
    expected = found_by_search(elasticsearch_server, [data_stream])
    with opened(ElasticsearchSource(index=data_stream), elasticsearch_server.url) as source:
        records = read_all(source)
        assert len(source.partitions) == 2
    assert {(record.index, record.id) for record in records} == expected
    assert len(records) == 40


def test_a_rollover_during_the_run_belongs_to_the_next_run(
    elasticsearch_server: ElasticsearchEndpoint, data_stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A leg that goes on reads the backing indices of the run's beginning, and says which one it leaves."""
    url = elasticsearch_server.url
    with opened(ElasticsearchSource(index=data_stream), url) as source:
        state, before = dict(source.state), (source.partitions, source.fingerprints)
    elasticsearch_server.request("POST", f"/{data_stream}/_rollover")
    with opened(ElasticsearchSource(index=data_stream), url, state=state) as source:
        assert (source.partitions, source.fingerprints) == before
    assert "was made after this run began and is left to the next one" in caplog.text
    with opened(ElasticsearchSource(index=data_stream), url) as source:
        assert len(source.partitions) == 3


def test_an_index_made_anew_under_a_pattern_is_noticed(
    elasticsearch_server: ElasticsearchEndpoint, name: str
) -> None:
    """A member that was replaced does not drop out silently: the fingerprint differs."""
    make_index(elasticsearch_server, f"{name}-1")
    make_index(elasticsearch_server, f"{name}-2")
    with opened(ElasticsearchSource(index=f"{name}-*"), elasticsearch_server.url) as source:
        state, before = dict(source.state), source.fingerprints["source"]
    elasticsearch_server.request("DELETE", f"/{name}-2")
    make_index(elasticsearch_server, f"{name}-2")
    with opened(ElasticsearchSource(index=f"{name}-*"), elasticsearch_server.url, state=state) as source:
        assert source.fingerprints["source"] != before


def test_another_filter_is_another_source(elasticsearch_server: ElasticsearchEndpoint, orders: str) -> None:
    """Half an output under one filter and half under another is refused by the fingerprint."""
    source = ElasticsearchSource(index=f"{orders}-eu")
    with opened(source, elasticsearch_server.url) as before:
        pass
    changed = {"filter": {"term": {"region": "asia"}}}
    elasticsearch_server.request("PUT", f"/{orders}-1/_alias/{orders}-eu", changed)
    with opened(source, elasticsearch_server.url) as after:
        assert after.fingerprints["source"] != before.fingerprints["source"]


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "missing"])
def test_what_is_not_there_is_refused_or_left_out(
    elasticsearch_server: ElasticsearchEndpoint,
    name: str,
    caplog: pytest.LogCaptureFixture,
    closed: bool,
) -> None:
    """A closed or missing member is refused by name, or left out with a warning where that is asked for."""
    make_index(elasticsearch_server, f"{name}-1")
    put_all(elasticsearch_server, f"{name}-1", {"1": {"n": 1}})
    if closed:
        make_index(elasticsearch_server, f"{name}-2")
        elasticsearch_server.request("POST", f"/{name}-2/_close")
    names = [f"{name}-1", f"{name}-2"]
    with pytest.raises(UsageError, match=rf"{name}-2\W.*ignore_unavailable=True leaves"):
        ElasticsearchSource(index=names).open(context(elasticsearch_server.url))
    caplog.clear()
    with opened(
        ElasticsearchSource(index=names, ignore_unavailable=True), elasticsearch_server.url
    ) as source:
        assert [record.id for record in read_all(source)] == ["1"]
        assert source.total == Total(records=1)
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(f"{name}-2" in text and "left out" in text for text in warned)


def test_a_closed_index_under_a_pattern_is_not_passed_over(
    elasticsearch_server: ElasticsearchEndpoint, name: str
) -> None:
    """A search by a pattern leaves closed indices out without a word; an export says so."""
    make_index(elasticsearch_server, f"{name}-1")
    make_index(elasticsearch_server, f"{name}-2")
    elasticsearch_server.request("POST", f"/{name}-2/_close")
    with pytest.raises(UsageError, match=f"{name}-2' is closed"):
        ElasticsearchSource(index=f"{name}-*").open(context(elasticsearch_server.url))


def test_a_pattern_without_an_index(elasticsearch_server: ElasticsearchEndpoint, name: str) -> None:
    """Nothing to read is refused, unless that is meant: then there is nothing, and no error."""
    pattern = f"{name}-nothing-*"
    with pytest.raises(UsageError, match=r"stands for no index .* allow_no_indices=True"):
        ElasticsearchSource(index=pattern).open(context(elasticsearch_server.url))
    with opened(
        ElasticsearchSource(index=pattern, allow_no_indices=True), elasticsearch_server.url
    ) as source:
        assert source.partitions == []
        assert source.total == Total(records=0)


def test_a_shard_without_a_copy_is_waited_for(elasticsearch_server: ElasticsearchEndpoint, name: str) -> None:
    """A shard that no search could reach is never taken for an empty one, also behind a routed alias."""
    body = {
        "settings": {
            "number_of_shards": 2,
            "number_of_replicas": 0,
            "index.routing.allocation.require._name": "nobody",
        },
        "aliases": {f"{name}-routed": {"search_routing": "a"}},
    }
    elasticsearch_server.request("PUT", f"/{name}-1?wait_for_active_shards=0", body)
    for index in (f"{name}-1", f"{name}-routed", f"{name}-*"):
        with pytest.raises(TransientError, match="shards are not available"):
            ElasticsearchSource(index=index).open(context(elasticsearch_server.url))


def test_many_indices_fit_their_requests(elasticsearch_server: ElasticsearchEndpoint, name: str) -> None:
    """More names than one request line can hold are asked for in several."""
    names = [f"{name}-{'x' * 180}-{number}" for number in range(25)]
    for number, index in enumerate(names):
        make_index(elasticsearch_server, index)
        put_all(elasticsearch_server, index, {str(number): {"n": number}})
    for asked in (names, [f"{name}-*"]):
        with opened(ElasticsearchSource(index=asked), elasticsearch_server.url) as source:
            assert sorted(int(record.id) for record in read_all(source)) == list(range(25))
            assert source.environment["more_indices"] == 15


@pytest.mark.parametrize("matching", [0, 3])
def test_partially_mounted_indices(
    elasticsearch_server: ElasticsearchEndpoint, name: str, matching: int
) -> None:
    """An index of the frozen tier is left out where nothing in it matches, else refused."""
    make_index(elasticsearch_server, f"{name}-1")
    put_all(elasticsearch_server, f"{name}-1", {"1": {"n": 1}})
    make_index(elasticsearch_server, f"{name}-2")
    if matching:
        put_all(elasticsearch_server, f"{name}-2", {str(n): {"n": n} for n in range(matching)})
    settings = elasticsearch_server.request("GET", f"/{name}-*/_settings?flat_settings=true")
    # Mounting needs a module that the minimal server lacks: only its setting is made up.
    settings[f"{name}-2"]["settings"]["index.store.snapshot.partial"] = "true"

    def plan(path: str, _number: int) -> Fault:
        return Status(200, json.dumps(settings).encode(), JSON) if path.endswith("/_settings") else None

    source = ElasticsearchSource(index=f"{name}-*")
    with fault_proxy(elasticsearch_server.url, plan) as (url, _):
        if matching:
            with pytest.raises(UsageError, match=f"{name}-2'.*: 3 documents there match"):
                source.open(context(url))
        else:
            with opened(source, url) as found:
                assert [record.id for record in read_all(found)] == ["1"]
