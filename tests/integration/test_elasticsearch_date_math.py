"""Our date math means what the real server's does."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.elasticsearch.date_math import resolve
from tests.support.elasticsearch_reading import put_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.elasticsearch import ElasticsearchEndpoint

pytestmark = pytest.mark.elasticsearch

STEPS = (
    *(
        "",
        "-1d",
        "+d",
        "-3h",
        "+45m",
        "-59s",
        "+1H",
        "-1y",
        "+18M",
        "-2w",
        "/y",
        "/M",
        "/w",
        "/d",
        "/h",
        "/m",
        "/s",
    ),
    *("-1M/M", "/M-1d", "-1d/d+6h", "/d/d", "+1M-1M", "-1y/w", "/w+3d/M"),
)
INSTANTS = (
    "2026-11-23T10:30:15.250Z",
    "2024-02-29T23:59:59.999Z",
    "2026-03-29T00:30:00.000Z",
    "2025-12-31T23:30:00.000Z",
)
ZONES = (None, "+05:30", "-11:00", "Europe/Paris")
MILLISECOND = timedelta(milliseconds=1)
MATCHED = {"gte": {0, 1}, "gt": {1}, "lt": {-1}, "lte": {-1, 0}}
"""Which of the milliseconds before, at and after the bound a range with it contains."""


@pytest.fixture
def index(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give an empty index of instants."""
    name = f"date-math-{secrets.token_hex(4)}"
    mapping = {"properties": {"at": {"type": "date"}, "case": {"type": "keyword"}}}
    elasticsearch_server.request("PUT", f"/{name}", {"mappings": mapping})
    yield name
    elasticsearch_server.request("DELETE", f"/{name}")


@pytest.mark.parametrize("bound", ["gte", "gt", "lt", "lte"])
def test_date_math_agrees_with_the_server(
    elasticsearch_server: ElasticsearchEndpoint, index: str, bound: str
) -> None:
    """For all units, roundings, zones, leap days and clock changes: exactly the same millisecond."""
    cases = list(product(INSTANTS, STEPS, ZONES))
    documents = {}
    for number, (instant, steps, zone) in enumerate(cases):
        now = datetime.fromisoformat(instant)
        ours = resolve(f"now{steps}", now, round_up=bound in {"gt", "lte"}, time_zone=zone)
        for offset in (-1, 0, 1):
            at = datetime.fromisoformat(ours) + offset * MILLISECOND
            documents[f"{number}:{offset}"] = {
                "at": at.isoformat(timespec="milliseconds"),
                "case": str(number),
            }
    put_all(elasticsearch_server, index, documents)

    different = []
    for number, (instant, steps, zone) in enumerate(cases):
        bounds = {bound: f"{instant}||{steps}", **({"time_zone": zone} if zone else {})}
        query = {"bool": {"filter": [{"term": {"case": str(number)}}, {"range": {"at": bounds}}]}}
        found = elasticsearch_server.request("POST", f"/{index}/_search?_source=false", {"query": query})
        matched = {int(hit["_id"].partition(":")[2]) for hit in found["hits"]["hits"]}
        if matched != MATCHED[bound]:
            different.append((cases[number], matched))
    assert not different
