"""API keys on a server of the tests, and connections that use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_batchkit.connectors.elasticsearch.client import ElasticsearchEndpoint

if TYPE_CHECKING:
    from tests.support.elasticsearch import ElasticsearchServer

LEAST = ("read", "view_index_metadata", "monitor", "maintenance")


@dataclass(frozen=True)
class Key:
    """An API key.

    :param id: by which it is invalidated.
    :param encoded: what a client sends.
    """

    id: str
    encoded: str


def new_key(
    server: ElasticsearchServer,
    granted: Mapping[str, Sequence[str]],
    *,
    expiration: str | None = None,
) -> Key:
    """Make an API key without any privilege on the cluster.

    :param granted: name of an index, alias, data stream or pattern → privileges there.
    :param expiration: how long it is good, as in ``1d``. Default: for ever.
    """
    indices = [{"names": [name], "privileges": list(rights)} for name, rights in granted.items()]
    body = {
        "name": "key of the tests",
        "role_descriptors": {"export": {"cluster": [], "indices": indices}},
        **({} if expiration is None else {"expiration": expiration}),
    }
    made = server.request("POST", "/_security/api_key", body)
    return Key(made["id"], made["encoded"])


def invalidate(server: ElasticsearchServer, key: Key) -> None:
    """Take a key back, at once."""
    server.request("DELETE", "/_security/api_key", {"ids": [key.id]})


def trusted(server: ElasticsearchServer, **settings: Any) -> ElasticsearchEndpoint:
    """Return how to reach a server whose certificate is trusted.

    :param settings: the credentials, or other settings of the endpoint.
    """
    return ElasticsearchEndpoint(**{"hosts": (server.url,), "ca_certs": str(server.ca_certs), **settings})
