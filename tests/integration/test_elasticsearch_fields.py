"""Some fields of each document, values that the server computes, and fields that exist only in one search."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.connectors.elasticsearch.source import ElasticsearchSource
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.types import Total
from tests.support.elasticsearch_reading import opened, put_all, read_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.elasticsearch import ElasticsearchEndpoint

pytestmark = pytest.mark.elasticsearch

ORDER = {
    "number": 17,
    "at": "2026-11-22T10:00:00+02:00",
    "customer": {"name": "Łucja", "address": {"street": "Długa 1", "city": "Kraków"}},
    "lines": [{"sku": "a", "price": 1.5}, {"sku": "b", "price": 2}],
}


@pytest.fixture
def index(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Make an index with two orders, one of them empty."""
    name = f"fields-{secrets.token_hex(4)}"
    body = {
        "settings": {"number_of_shards": 1, "number_of_replicas": 0},
        "mappings": {"properties": {"at": {"type": "date"}, "customer": {"properties": {}}}},
    }
    elasticsearch_server.request("PUT", f"/{name}", body)
    put_all(elasticsearch_server, name, {"order": ORDER, "empty": {}})
    yield name
    elasticsearch_server.request("DELETE", f"/{name}?ignore_unavailable=true")


def read(server: ElasticsearchEndpoint, **settings: Any) -> dict[str, Any]:
    """Return the bodies by id."""
    with opened(ElasticsearchSource(**settings), server.url) as source:
        return {record.id: json.loads(bytes(record.body)) for record in read_all(source)}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"source_includes": ["number"]}, {"number": 17}),
        (
            {"source_includes": ["customer.*"], "source_excludes": ["*.street"]},
            {"customer": {"name": "Łucja", "address": {"city": "Kraków"}}},
        ),
        ({"source_excludes": ["customer", "lines", "at"]}, {"number": 17}),
        ({"source_includes": ["nothing"]}, {}),
        ({"fields": ["number", "lines.sku.keyword"]}, {"number": [17], "lines.sku.keyword": ["a", "b"]}),
        (
            {"fields": ["customer.address.city", {"field": "at", "format": "epoch_second"}]},
            {"customer.address.city": ["Kraków"], "at": ["1795334400"]},
        ),
        (
            {
                "fields": ["number", "day"],
                "runtime_mappings": {"day": {"type": "date", "format": "yyyy"}},
            },
            {"number": [17]},
        ),
    ],
)
def test_only_what_was_asked_for_comes(
    elasticsearch_server: ElasticsearchEndpoint,
    index: str,
    settings: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    """Each record is an object of what was asked for; one that has none of it is an empty one."""
    assert read(elasticsearch_server, index=index, **settings) == {"order": expected, "empty": {}}


def test_a_runtime_field_serves_the_query_and_the_sort(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """A field that is not in the mapping can be searched, sorted by and returned; the total knows it too."""
    put_all(elasticsearch_server, index, {str(n): {"hidden": {"rank": n}} for n in range(50)})
    settings: dict[str, Any] = {
        "index": index,
        "runtime_mappings": {"hidden.rank": {"type": "long"}},
        "query": {"range": {"hidden.rank": {"gte": 10, "lt": 40}}},
        "sort": ["hidden.rank:desc"],
        "fields": ["hidden.rank"],
    }
    with opened(ElasticsearchSource(**settings), elasticsearch_server.url) as source:
        records = read_all(source)
        assert source.total == Total(records=30)
    assert [json.loads(bytes(record.body)) for record in records] == [
        {"hidden.rank": [n]} for n in range(39, 9, -1)
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fields": "number"}, "give a list"),
        ({"source_includes": ["a", ""]}, "none of them empty"),
        ({"fields": ["a"], "source_excludes": ["b"]}, "instead of the document"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], message: str) -> None:
    """What cannot be meant is refused before anything is asked."""
    with pytest.raises(UsageError, match=message):
        ElasticsearchSource(index="orders", **settings).check()


def test_other_fields_are_another_output(elasticsearch_server: ElasticsearchEndpoint, index: str) -> None:
    """Fields and sort are part of the fingerprints, so that no run goes on with others."""
    seen = set()
    different: list[dict[str, Any]] = [
        {},
        {"source_includes": ["n"]},
        {"fields": ["n"]},
        {"sort": ["number"]},
    ]
    for settings in different:
        source = ElasticsearchSource(index=index, **settings)
        with opened(source, elasticsearch_server.url) as found:
            seen.add((found.fingerprints["fields"], found.fingerprints["sort"]))
    assert len(seen) == 4
