"""The tests' own Elasticsearch does what the tests rely on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.elasticsearch_folder import PASSWORD

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


def test_a_node_with_users_keeps_to_their_roles(
    new_elasticsearch_server: Callable[..., ElasticsearchServer],
) -> None:
    """A user may do what its role says and nothing else, and without the password nothing at all."""
    from elasticsearch import AuthenticationException, AuthorizationException, Elasticsearch

    reader = {"indices": [{"names": ["orders"], "privileges": ["read"]}]}
    server = new_elasticsearch_server(users={"ann": ["reader"]}, roles={"reader": reader})
    server.request("PUT", "/orders/_doc/1?refresh=true", {"total": 12})

    with Elasticsearch(server.url, basic_auth=("ann", PASSWORD)) as client:
        assert client.get(index="orders", id="1")["found"]
        with pytest.raises(AuthorizationException, match=re.escape("indices:admin/refresh")):
            client.indices.refresh(index="orders")
    with Elasticsearch(server.url) as client, pytest.raises(AuthenticationException):
        client.get(index="orders", id="1")
