"""The connection by which a task asks its own Airflow."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.watching.api import AirflowEndpoint
from airflow_batchkit.watching.inside import endpoint_of_connection


def endpoint(**fields: Any) -> AirflowEndpoint:
    """Read a connection with some fields."""
    from airflow.sdk import Connection

    return endpoint_of_connection(Connection(conn_id="airflow_api", conn_type="http", **fields))


def test_the_parts_make_an_address() -> None:
    """Host alone means http; a schema, a port, or an address with a path are taken as they are."""
    assert endpoint(host="apiserver", port=8080).base == "http://apiserver:8080"
    assert endpoint(host="airflow.example", schema="https").base == "https://airflow.example"
    assert endpoint(host="https://airflow.example/sub/").base == "https://airflow.example/sub"


def test_who_asks() -> None:
    """A user with a password, or a token among the extras."""
    user = endpoint(host="a", login="watch", password="w4tch")
    token = endpoint(host="a", extra='{"token": "t0ken", "ca_certs": "/etc/ca.pem"}')

    assert (user.username, user.password, user.token) == ("watch", "w4tch", None)
    assert (token.username, token.token, token.ca_certs) == (None, "t0ken", "/etc/ca.pem")


@pytest.mark.parametrize("fields", [{}, {"host": "a", "login": "watch"}])
def test_a_connection_that_leads_nowhere_is_named(fields: dict[str, Any]) -> None:
    """The message says which connection and what is missing."""
    with pytest.raises(UsageError, match=r"connection 'airflow_api': "):
        endpoint(**fields)
