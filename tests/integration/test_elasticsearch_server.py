"""The tests' own Elasticsearch does what the tests rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.elasticsearch import ElasticsearchServer

pytestmark = pytest.mark.elasticsearch


def test_a_killed_node_comes_back_with_its_data(
    new_elasticsearch_server: Callable[..., ElasticsearchServer],
) -> None:
    """A node that is killed and started again answers at the same URL with the documents it had."""
    server = new_elasticsearch_server(settings={"thread_pool.write.queue_size": 50})
    server.request("PUT", "/orders/_doc/1?refresh=true", {"total": 12})

    server.restart(in_order=False)

    assert server.request("GET", "/orders/_source/1") == {"total": 12}
    with server.client() as client:
        assert client.get(index="orders", id="1")["found"]
