"""A connection's fields and extras, each read by its name, make an endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk import Connection  # noqa: TID253  # what is read

from airflow_batchkit.connectors.elasticsearch.client import ElasticsearchEndpoint
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.hooks.elasticsearch import elasticsearch_endpoint


def endpoint(*, extra: dict[str, Any] | None = None, **fields: Any) -> ElasticsearchEndpoint:
    """Make an endpoint from a connection."""
    return elasticsearch_endpoint(
        Connection(conn_id="es", conn_type="elasticsearch", extra=json.dumps(extra or {}), **fields)
    )


@pytest.mark.parametrize(
    ("fields", "hosts"),
    [
        ({"host": "search"}, ("http://search:9200",)),
        ({"host": "search", "port": 9243, "schema": "https"}, ("https://search:9243",)),
        ({"host": "a, b:9201", "port": 9200}, ("http://a:9200", "http://b:9201")),
        ({"host": "https://search:443/"}, ("https://search:443",)),
        ({"host": "::1", "port": 9200}, ("http://[::1]:9200",)),
        ({"host": "[::1]:9201"}, ("http://[::1]:9201",)),
    ],
)
def test_hosts(fields: dict[str, Any], hosts: tuple[str, ...]) -> None:
    """Host, port and schema make URLs; several hosts are separated by commas."""
    assert endpoint(**fields).hosts == hosts


def test_credentials_and_tls() -> None:
    """Login and password, or an API key, and the CA; certificates are verified unless told otherwise."""
    basic = endpoint(host="s", login="u", password="p", schema="https", extra={"ca_certs": "/ca.pem"})
    assert (basic.username, basic.password, basic.ca_certs, basic.verify_certs) == ("u", "p", "/ca.pem", True)
    key = endpoint(host="s", extra={"api_key": "a2V5", "verify_certs": "false", "http_compress": "true"})
    assert (key.api_key, key.verify_certs, key.http_compress) == ("a2V5", False, True)
    pinned = endpoint(host="s", schema="https", extra={"ssl_assert_fingerprint": "AB:CD"})
    assert pinned.fingerprint == "AB:CD"


def test_elastic_cloud() -> None:
    """A cloud id stands in for the host."""
    cloud = endpoint(host="ignored", extra={"cloud_id": "name:aG9zdA==", "api_key": "a2V5"})
    assert (cloud.hosts, cloud.cloud_id) == ((), "name:aG9zdA==")


def test_unknown_extras_are_not_spread() -> None:
    """An extra that is not known by name reaches no client."""
    assert endpoint(host="s", extra={"node_class": "evil", "basic_auth": ["a", "b"]}) == endpoint(host="s")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "connection 'es': has neither a host nor a cloud_id"),
        ({"host": "s", "schema": "ftp"}, "connection 'es': schema 'ftp': must be http or https"),
        ({"host": "s", "login": "u"}, "connection 'es': .*password"),
        ({"host": "s", "extra": {"verify_certs": "maybe"}}, "connection 'es': verify_certs='maybe'"),
    ],
)
def test_unusable_connections_say_why(fields: dict[str, Any], message: str) -> None:
    """One line names the connection and what is wrong with it."""
    with pytest.raises(UsageError, match=message):
        endpoint(**fields)


def test_no_secret_is_shown() -> None:
    """Neither text nor JSON of an endpoint holds what must stay secret."""
    shown = endpoint(host="s", login="u", password="hunter2")
    assert "hunter2" not in repr(shown) + str(shown.serialize())
