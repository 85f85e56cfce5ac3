"""The Elasticsearch source passes the source contract, on a real server."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch import ElasticsearchSource
from airflow_batchkit.testing.contract import SourceContract
from tests.support.elasticsearch_reading import context, make_index, put_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_batchkit.engine.source import OpenContext, Source
    from tests.support.elasticsearch import ElasticsearchEndpoint

DOCUMENTS = {f"id-{number}": {"n": number, "text": "x" * number} for number in range(40)}


@pytest.fixture(scope="module")
def index(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give an index that every test of the suite reads."""
    name = f"contract-{secrets.token_hex(4)}"
    make_index(elasticsearch_server, name, shards=3)
    put_all(elasticsearch_server, name, DOCUMENTS)
    yield name
    elasticsearch_server.request("DELETE", f"/{name}")


@pytest.mark.elasticsearch
class TestElasticsearchSource(SourceContract):
    @pytest.fixture
    @override
    def context(self, elasticsearch_server: ElasticsearchEndpoint) -> OpenContext:
        return context(elasticsearch_server.url)

    @pytest.fixture
    @override
    def source(self, index: str) -> Source:
        return ElasticsearchSource(index=index)

    @pytest.fixture
    @override
    def expected(self) -> Sequence[tuple[str, bytes]]:
        return [(id_, json.dumps(document).encode()) for id_, document in DOCUMENTS.items()]

    @pytest.fixture
    @override
    def refused(self, index: str) -> Sequence[Source]:
        return [
            ElasticsearchSource(index="there-is-no-such-index"),
            ElasticsearchSource(index=index, query={"no_such_query": {}}),
        ]
