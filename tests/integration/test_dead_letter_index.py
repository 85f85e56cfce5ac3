"""Which index dead letters may be kept in."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.connectors.elasticsearch import ElasticsearchDeadLetters
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.sink import BatchKey
from airflow_batchkit.engine.source import OpenContext
from tests.support.connections import ServerConnections
from tests.support.letter_rows import letters_of
from tests.support.object_storage import leg, publication

if TYPE_CHECKING:
    from tests.support.elasticsearch import ElasticsearchEndpoint

pytestmark = pytest.mark.elasticsearch


@pytest.fixture
def index(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give a name of which nothing is left."""
    name = f"box-{secrets.token_hex(4)}"
    yield name
    elasticsearch_server.request("DELETE", f"/{name}?ignore_unavailable=true")


@pytest.fixture
def keep(elasticsearch_server: ElasticsearchEndpoint, index: str) -> Callable[[], list[str]]:
    """Give a function that keeps a letter, and returns the ids of those that are found."""
    context = OpenContext(
        connections=ServerConnections(elasticsearch_url=elasticsearch_server.url),
        timeouts=Timeouts(),
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )
    box = ElasticsearchDeadLetters(index=index)

    def kept() -> list[str]:
        with closing(box.open_letters(context)) as place:
            place.check()
            assert list(place.sets()) == []
        with closing(box.open(context)) as opened:
            opened.start(leg("a"))
            opened.put(BatchKey(partition=0, number=1), letters_of(leg("a"), 1, b"{}"))
            opened.settle(publication(0, dead_lettered=1))
        with closing(box.open_letters(context)) as place:
            return [line.letter.id for found in place.sets() for line in place.lines(found)]

    return kept


@pytest.mark.parametrize("body", [{}, {"mappings": {"properties": {"day": {"type": "date"}}}}])
def test_an_empty_index_is_given_the_mapping(
    elasticsearch_server: ElasticsearchEndpoint, index: str, keep: Callable[[], list[str]], body: Any
) -> None:
    """An index that somebody made beforehand, with settings of their own, is taken as it is."""
    elasticsearch_server.request("PUT", f"/{index}", {"settings": {"number_of_shards": 2}, **body})

    assert keep() == ["1.0"]


def test_an_index_of_something_else_is_refused(
    elasticsearch_server: ElasticsearchEndpoint, index: str, keep: Callable[[], list[str]]
) -> None:
    """Documents that are there, seen or not yet, are nobody's to mix letters into."""
    settings = {"settings": {"refresh_interval": -1}}
    elasticsearch_server.request("PUT", f"/{index}", settings)
    elasticsearch_server.request("PUT", f"/{index}/_doc/1", {"day": 1})

    with pytest.raises(UsageError, match="was not made for dead letters"):
        keep()


def test_fields_of_another_kind_are_refused(
    elasticsearch_server: ElasticsearchEndpoint, index: str, keep: Callable[[], list[str]]
) -> None:
    """A field that bears one of our names and is another kind cannot be changed, even while it is empty."""
    mapping = {"mappings": {"properties": {"status": {"type": "long"}}}}
    elasticsearch_server.request("PUT", f"/{index}", mapping)

    with pytest.raises(UsageError, match="was not made for dead letters"):
        keep()


def test_a_name_for_several_indices_is_refused(
    elasticsearch_server: ElasticsearchEndpoint, index: str, keep: Callable[[], list[str]]
) -> None:
    """An alias that spreads over two indices could not be written to."""
    for number in ("1", "2"):
        elasticsearch_server.request("PUT", f"/{index}-{number}", {"aliases": {index: dict[str, str]()}})
    try:
        with pytest.raises(UsageError, match="names 2 indices: dead letters need one of their own"):
            keep()
    finally:
        elasticsearch_server.request("DELETE", f"/{index}-1,{index}-2")
