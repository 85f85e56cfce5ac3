"""A real server that refuses what is too much at once, and takes less."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.elasticsearch import search
from airflow_batchkit.connectors.elasticsearch.source import ElasticsearchSource
from tests.support.elasticsearch_reading import OneServer, make_index, put_all
from tests.support.http_faults import Asked, Fault, Status, http_proxy
from tests.support.legs import Recorder, World

if TYPE_CHECKING:
    from tests.support.elasticsearch import ElasticsearchEndpoint

pytestmark = pytest.mark.elasticsearch

TOO_MUCH = Status(
    429,
    b'{"error":{"type":"circuit_breaking_exception","reason":"[parent] Data too large"}}',
    (("Content-Type", "application/json"),),
)


@pytest.mark.fault("pushback", at="elasticsearch")
def test_a_circuit_breaker_is_asked_for_less(
    elasticsearch_server: ElasticsearchEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses pages of the usual size for ever; smaller ones pass, in the same leg, each document once."""
    monkeypatch.setattr(search, "PAUSES", (0.0,))
    index = f"breaker-{secrets.token_hex(4)}"
    make_index(elasticsearch_server, index)
    put_all(elasticsearch_server, index, {f"id-{number}": {"n": number} for number in range(600)})
    sizes: list[int] = []

    def plan(asked: Asked) -> Fault:
        if asked.resource != "/_search":
            return None
        size = json.loads(asked.body)["size"]
        sizes.append(size)
        return TOO_MUCH if size > 200 else None

    world = World()
    recorder = Recorder()
    with http_proxy(elasticsearch_server.url, plan) as proxy:
        report = world.run(
            world.job(source=ElasticsearchSource(index=index)),
            connections=OneServer(proxy.url),
            listeners=[recorder],
        )
    assert report.legs == 1
    assert sorted(world.ids) == sorted(f"id-{number}" for number in range(600))
    assert recorder.named("retry")
    assert sizes[0] > 200
    elasticsearch_server.request("DELETE", f"/{index}")
