"""Where an Elasticsearch is and how to get in."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from airflow_batchkit.connectors.elasticsearch.client import ElasticsearchEndpoint, connect
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.policies import Timeouts

HTTPS = ("https://search.example:9200",)


def node_config(**settings: Any) -> Any:
    """Make a client and return the settings of its only node."""
    client = connect(ElasticsearchEndpoint(**settings), Timeouts())
    (node,) = client.transport.node_pool.all()
    client.close()
    return node.config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either hosts or a cloud_id"),
        ({"hosts": HTTPS, "cloud_id": "x:y"}, "either hosts or a cloud_id"),
        ({"hosts": ("search.example:9200",)}, "must look like"),
        ({"hosts": ("https://",)}, "must look like"),
        ({"hosts": ("ftp://search.example:9200",)}, "must look like"),
        ({"hosts": ("https://search.example:port",)}, "must look like"),
        ({"hosts": ("https://me:tomato@search.example:9200",)}, "user or password"),
        ({"hosts": HTTPS, "api_key": "tomato", "username": "me", "password": "tomato"}, "not both"),
        ({"hosts": HTTPS, "username": "me"}, "needs a password"),
        ({"hosts": HTTPS, "password": "tomato"}, "needs a password"),
        ({"hosts": HTTPS, "fingerprint": "ab:cd", "verify_certs": False}, "fingerprint"),
    ],
)
def test_settings_that_reach_no_server_are_refused(settings: dict[str, Any], message: str) -> None:
    """Each refusal is one line, and shows no secret."""
    with pytest.raises(UsageError, match=message) as caught:
        ElasticsearchEndpoint(**settings)
    assert "tomato" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    """Neither repr nor the serialised form holds a key or password."""
    for endpoint in (
        ElasticsearchEndpoint(hosts=HTTPS, api_key="tomato"),
        ElasticsearchEndpoint(hosts=HTTPS, username="me", password="tomato"),
    ):
        assert "tomato" not in repr(endpoint)
        assert "tomato" not in str(endpoint.serialize())
        assert "search.example" in repr(endpoint)


def test_credentials_are_sent() -> None:
    """An API key and a user with password become the headers that the server expects."""
    by_key = connect(ElasticsearchEndpoint(hosts=HTTPS, api_key="a2V5"), Timeouts())
    by_name = connect(ElasticsearchEndpoint(hosts=HTTPS, username="me", password="pw"), Timeouts())
    assert by_key._headers["authorization"] == "ApiKey a2V5"
    assert by_name._headers["authorization"].startswith("Basic ")


def test_the_client_does_nothing_by_itself() -> None:
    """No looking for other nodes, no compression, no retries: whoever calls decides."""
    client = connect(ElasticsearchEndpoint(hosts=("http://a:1", "http://b:2/search")), Timeouts())
    transport = client.transport
    assert client._max_retries == 0
    assert not transport._sniff_on_start
    assert not transport._sniff_on_node_failure
    assert {node.config.http_compress for node in transport.node_pool.all()} == {False}
    assert {node.base_url for node in transport.node_pool.all()} == {"http://a:1", "http://b:2/search"}


def test_certificates_are_verified_unless_somebody_insists(caplog: pytest.LogCaptureFixture) -> None:
    """Verification is on; switched off it is a loud warning."""
    assert node_config(hosts=HTTPS).verify_certs is True
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert node_config(hosts=HTTPS, verify_certs=False).verify_certs is False
    assert "CERTIFICATES ARE NOT VERIFIED" in caplog.text


def test_a_fingerprint_is_written_as_one_likes() -> None:
    """With colons and capitals or without, it is the same certificate."""
    print_ = "AB:CD:" * 15 + "AB:CD"
    assert node_config(hosts=HTTPS, fingerprint=print_).ssl_assert_fingerprint == "abcd" * 16


def test_a_certificate_file_that_is_not_there_is_refused() -> None:
    """The message comes before any connection."""
    with pytest.raises(UsageError, match="is not a file here"):
        connect(ElasticsearchEndpoint(hosts=HTTPS, ca_certs="/there/is/no/such/file.pem"), Timeouts())


def test_tls_settings_do_not_matter_without_tls() -> None:
    """A connection by http ignores what is about certificates."""
    assert node_config(hosts=("http://search.example:9200",), ca_certs="/no/such/file").scheme == "http"
