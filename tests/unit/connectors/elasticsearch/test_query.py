"""Queries: what is refused in them, and what now becomes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_batchkit.connectors.elasticsearch.query import canonical, check_query, resolved
from airflow_batchkit.engine.exceptions import UsageError

NOW = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"bool": {}},
        {"bool": {"filter": [], "must": []}},
        {"range": {"at": {}}},
        {"range": {"at": {"gte": None}}},
        {"range": {"at": {"gte": ""}}},
        {"bool": {"filter": [{"range": {"at": {"gte": "2026-01-01", "lt": ""}}}]}},
    ],
)
def test_a_query_that_came_out_empty_is_refused(query: dict[str, Any]) -> None:
    """Where a template rendered to nothing, the run does not export everything."""
    with pytest.raises(UsageError, match=r"empty|no bound"):
        check_query(query)


@pytest.mark.parametrize("query", ["match_all", [{"match_all": {}}], 3])
def test_a_query_is_a_dict(query: Any) -> None:
    """Text, lists and numbers are refused, naming what is expected."""
    with pytest.raises(UsageError, match="as a dict"):
        check_query(query)


@pytest.mark.parametrize(
    "query", [{"term": {"at": datetime(2026, 1, 1, tzinfo=UTC)}}, {"term": {"n": float("nan")}}]
)
def test_a_query_is_json(query: dict[str, Any]) -> None:
    """What JSON does not know is refused."""
    with pytest.raises(UsageError, match="not JSON"):
        check_query(query)


@pytest.mark.parametrize(
    "query",
    [
        None,
        {"match_all": {}},
        {"bool": {"must_not": [{"term": {"a": 1}}]}},
        {"range": {"n": {"gte": 0}}},
        {"term": {"range": {"value": 1}}},
        {"term": {"status": ""}},
    ],
)
def test_ordinary_queries_pass(query: dict[str, Any] | None) -> None:
    """Nothing else is refused here: the server checks the rest."""
    check_query(query)


def test_no_query_is_everything() -> None:
    """Without a query all documents match."""
    assert resolved(None, NOW) == {"match_all": {}}


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (
            {"gte": "now-1d/d", "lt": "now/d"},
            {
                "gte": "2026-11-22T00:00:00.000Z",
                "lt": "2026-11-23T00:00:00.000Z",
                "format": "strict_date_time",
            },
        ),
        (
            {"gt": "now-1d/d", "lte": "now/d"},
            {
                "gt": "2026-11-22T23:59:59.999Z",
                "lte": "2026-11-23T23:59:59.999Z",
                "format": "strict_date_time",
            },
        ),
        ({"gte": "2026-01-01", "lt": "now"}, {"gte": "2026-01-01", "lt": "2026-11-23T10:30:00.000Z"}),
        (
            {"gte": "01/2026", "lt": "now", "format": "MM/yyyy"},
            {"gte": "01/2026", "lt": "2026-11-23T10:30:00.000Z", "format": "strict_date_time||MM/yyyy"},
        ),
        (
            {"gte": "now/d", "time_zone": "+02:00"},
            {"gte": "2026-11-22T22:00:00.000Z", "time_zone": "+02:00", "format": "strict_date_time"},
        ),
        (
            {"from": "now/d", "to": "now/d", "include_upper": False},
            {
                "from": "2026-11-23T00:00:00.000Z",
                "to": "2026-11-23T00:00:00.000Z",
                "include_upper": False,
                "format": "strict_date_time",
            },
        ),
        ({"gte": "2026-01-01||-1d/d"}, {"gte": "2026-01-01||-1d/d"}),
        ({"gte": 5, "lt": 7.5}, {"gte": 5, "lt": 7.5}),
    ],
)
def test_now_in_a_range_becomes_an_instant(bounds: dict[str, Any], expected: dict[str, Any]) -> None:
    """Bounds with now become absolute, rounded as the server rounds them, in a format that reads them."""
    query = {
        "bool": {"filter": [{"range": {"at": bounds}}], "must": {"nested": {"query": {"match_all": {}}}}}
    }
    made = resolved(query, NOW)
    assert made == {**query, "bool": {**query["bool"], "filter": [{"range": {"at": expected}}]}}
    assert query["bool"]["filter"] == [{"range": {"at": bounds}}], "the user's own query was changed"


@pytest.mark.parametrize(
    "query",
    [
        {"query_string": {"query": "at:[now-1d TO now]"}},
        {"bool": {"should": [{"simple_query_string": {"query": "now", "fields": ["at"]}}]}},
        {"term": {"at": {"value": "now-1d"}}},
        {"terms": {"at": ["2026-01-01", "now/d"]}},
        {"match": {"at": "now-1h"}},
        {"percolate": {"field": "query", "document": {"at": "now-1d"}}},
        {"distance_feature": {"field": "at", "origin": "now", "pivot": "7d"}},
        {"script": {"script": "doc['at'].value.millis < new Date().getTime()"}},
        {"script": {"script": {"source": "Instant.now().isAfter(doc['at'].value)"}}},
        {"function_score": {"script_score": {"script": {"source": "System.currentTimeMillis()"}}}},
        {"wrapper": {"query": "eyJtYXRjaF9hbGwiOnt9fQ=="}},
    ],
)
def test_now_that_cannot_be_fixed_is_refused(query: dict[str, Any]) -> None:
    """Where the server would read its clock on every page, the message says what to write instead."""
    with pytest.raises(UsageError, match=r"data_interval_start|write the query out") as caught:
        resolved(query, NOW)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        {"term": {"status": "now"}},
        {"match": {"text": "buy now or never"}},
        {"prefix": {"name": "nowhere"}},
        {"query_string": {"query": "status:(known OR nowhere)"}},
        {"script": {"script": {"source": "doc['n'].value > params.now", "params": {"now": 5}}}},
    ],
)
def test_the_word_now_is_no_clock(query: dict[str, Any]) -> None:
    """Ordinary text that holds the word passes as it is."""
    assert resolved(query, NOW) == query


def test_the_order_of_keys_does_not_matter() -> None:
    """Two spellings of one query have one canonical form."""
    assert canonical({"a": 1, "b": [1, 2]}) == canonical({"b": [1, 2], "a": 1}) == '{"a":1,"b":[1,2]}'
