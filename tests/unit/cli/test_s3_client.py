"""S3 clients of the command line: keys from a connection, the address from the URL, no more than is meant."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.cli.airflow_connections import AirflowConnection
from airflow_batchkit.cli.s3_client import connection_settings, s3_client
from airflow_batchkit.cli.s3_urls import s3_name
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.policies import Timeouts

if TYPE_CHECKING:
    from pathlib import Path


def define(monkeypatch: pytest.MonkeyPatch, **extra: Any) -> None:
    """Define the connection ``aws``."""
    stored = {"login": "key", "password": "s3cret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS", json.dumps(stored))


def test_settings_from_a_connection() -> None:
    """Keys come from login and password or from the extras; what is absent stays boto3's own choice."""
    extra = {"endpoint_url": "http://localhost:5000", "region_name": "eu-central-1"}
    found = connection_settings(AirflowConnection(login="key", password="s3cret", extra=extra))
    assert {name: value for name, value in found.items() if value} == {
        "aws_access_key_id": "key",
        "aws_secret_access_key": "s3cret",
        **extra,
    }


def test_client_never_retries_and_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's retries are the only ones, and no call can wait for ever."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with closing(s3_client("", Timeouts())) as client:
        config = client.meta.config
        assert config.retries["total_max_attempts"] == 1
        assert (config.connect_timeout, config.read_timeout) == (10, 60)
        assert client.meta.endpoint_url == "http://localhost:1"


def test_the_url_wins_over_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL says where, the connection who; path style and checksums of the connection hold."""
    define(
        monkeypatch,
        endpoint_url="http://localhost:5000",
        region_name="eu-west-1",
        config_kwargs={
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "read_timeout": 999,
        },
    )
    with closing(s3_client("conn_id=aws", Timeouts())) as client:
        assert client.meta.config.s3["addressing_style"] == "path"
        assert client.meta.config.request_checksum_calculation == "when_required"
        assert client.meta.config.read_timeout == 60
        assert client.meta.endpoint_url == "http://localhost:5000"
    parameters = {"conn_id": "aws", "endpoint_url": "http://localhost:6000", "addressing_style": "virtual"}
    with closing(s3_client(s3_name(parameters), Timeouts())) as client:
        assert client.meta.endpoint_url == "http://localhost:6000"
        assert client.meta.region_name == "eu-west-1"
        assert client.meta.config.s3["addressing_style"] == "virtual"


def test_an_endpoint_for_s3_alone_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """``service_config`` says where S3 is, as for Airflow's own hook."""
    define(
        monkeypatch,
        endpoint_url="http://localhost:5000",
        service_config={"s3": {"endpoint_url": "http://localhost:7000"}},
        region_name="us-east-1",
    )
    with closing(s3_client("conn_id=aws", Timeouts())) as client:
        assert client.meta.endpoint_url == "http://localhost:7000"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("false", False), (False, False), ("true", None), (True, None), (None, None), ("/ca.pem", "/ca.pem")],
)
def test_certificates_are_verified_unless_told(given: object, wanted: object) -> None:
    """Only an explicit no switches verification off; a path is a CA bundle."""
    assert connection_settings(AirflowConnection(extra={"verify": given}))["verify"] == wanted


def test_profiles_are_read_and_roles_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A role that would be passed over means another identity: it is refused, a profile may name it."""
    credentials = tmp_path / "credentials"
    credentials.write_text("[batch]\naws_access_key_id = profile-key\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv(
        "AIRFLOW_CONN_AWS", json.dumps({"extra": {"profile_name": "batch", "region_name": "eu"}})
    )
    with closing(s3_client("conn_id=aws", Timeouts())) as client:
        assert client._request_signer._credentials.access_key == "profile-key"
    define(monkeypatch, role_arn="arn:aws:iam::123456789012:role/export")
    with pytest.raises(UsageError, match="'role_arn' is not read by the command line"):
        s3_client("conn_id=aws", Timeouts())
    define(monkeypatch, config_kwargs="s3")
    with pytest.raises(UsageError, match="'config_kwargs' must be a JSON object"):
        s3_client("conn_id=aws", Timeouts())
    monkeypatch.setenv("AIRFLOW_CONN_AWS", json.dumps({"extra": {"profile_name": "nobody"}}))
    with pytest.raises(UsageError, match="make no S3 client"):
        s3_client("conn_id=aws", Timeouts())
