"""``AIRFLOW_CONN_<ID>`` variables are read as Airflow reads them, and never repeated."""

from __future__ import annotations

import pytest

from airflow_batchkit.cli.airflow_connections import airflow_connection
from airflow_batchkit.engine.exceptions import UsageError


@pytest.mark.parametrize(
    "stored",
    [
        '{"conn_type": "es", "login": "elastic", "password": "s3/cret", "extra": {"ca_certs": "/ca.pem"}}',
        '{"login": "elastic", "password": "s3/cret", "extra": "{\\"ca_certs\\": \\"/ca.pem\\"}"}',
        "elasticsearch://elastic:s3%2Fcret@host:9200/https?ca_certs=%2Fca.pem",
        "elasticsearch://elastic:s3%2Fcret@host:9200/?__extra__=%7B%22ca_certs%22%3A%20%22%2Fca.pem%22%7D",
    ],
)
def test_json_and_uri_mean_the_same(monkeypatch: pytest.MonkeyPatch, stored: str) -> None:
    """Login, password and extras are the same in each form that Airflow knows."""
    monkeypatch.setenv("AIRFLOW_CONN_PROD", stored)
    connection = airflow_connection("prod")
    assert (connection.login, connection.password) == ("elastic", "s3/cret")
    assert connection.extra == {"ca_certs": "/ca.pem"}
    assert "s3/cret" not in repr(connection)


def test_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who forgot the variable reads its name."""
    monkeypatch.delenv("AIRFLOW_CONN_PROD", raising=False)
    with pytest.raises(UsageError, match="AIRFLOW_CONN_PROD is not set"):
        airflow_connection("prod")


@pytest.mark.parametrize(
    "stored",
    [
        "s3cret",
        '{"password": "s3cret"',
        '{"password": ["s3cret"]}',
        "es://u:s3cret@[h",
        "es://h?__extra__=s3cret",
    ],
)
def test_unreadable_variable_is_not_repeated(monkeypatch: pytest.MonkeyPatch, stored: str) -> None:
    """A variable that cannot be read may hold a password: neither message nor cause repeats it."""
    monkeypatch.setenv("AIRFLOW_CONN_PROD", stored)
    with pytest.raises(UsageError, match="AIRFLOW_CONN_PROD is neither") as caught:
        airflow_connection("prod")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
