"""What follows ``?`` in an s3:// URL reaches the sink, the dead letters and the client."""

from __future__ import annotations

import pytest

from airflow_batchkit.cli.s3_urls import S3Account, s3_account, s3_name
from airflow_batchkit.cli.systems import dead_letters_at, sink_at
from airflow_batchkit.cli.urls import parse
from airflow_batchkit.engine.exceptions import UsageError

URL = (
    "s3://lake/orders?server_side_encryption=aws:kms&sse_kms_key_id=alias/lake&bucket_key_enabled=true"
    "&storage_class=STANDARD_IA&acl=private&tags=team=search,env=a=b&expected_bucket_owner=123456789012"
    "&requester_pays=yes&multipart_bytes=64MiB"
)


def test_settings_reach_sink_and_dead_letters() -> None:
    """Every field of S3Settings can stand in the URL, under its own name."""
    wanted = {
        "server_side_encryption": "aws:kms",
        "sse_kms_key_id": "alias/lake",
        "bucket_key_enabled": True,
        "storage_class": "STANDARD_IA",
        "acl": "private",
        "tags": {"team": "search", "env": "a=b"},
        "expected_bucket_owner": "123456789012",
        "requester_pays": True,
        "multipart_bytes": 64 * 1024**2,
    }
    sink = sink_at(parse(URL), compression=None).serialize()
    assert (sink["url"], sink["s3_settings"]) == ("s3://lake/orders", wanted)
    assert dead_letters_at(parse(URL)).serialize()["s3_settings"] == wanted
    assert sink_at(parse("s3://lake/orders"), compression=None).serialize()["s3_settings"] is None


def test_account_survives_its_name() -> None:
    """A connection and an address are read back as they were typed."""
    parameters = dict(
        parse(
            "s3://lake/x?endpoint_url=http://localhost:9000&addressing_style=path&region_name=eu&conn_id=aws"
        ).parameters
    )
    assert s3_account(s3_name(parameters)) == S3Account(
        conn_id="aws", endpoint_url="http://localhost:9000", region_name="eu", addressing_style="path"
    )
    assert s3_account(s3_name({"conn_id": "aws", "storage_class": "GLACIER"})) == S3Account(conn_id="aws")
    assert s3_account(s3_name({})) == S3Account()


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("addressing_style=subdomain", "must be one of auto, path, virtual"),
        ("endpoint_url=localhost:9000", "must be http://host:port"),
        ("tags=team", "must be key=value"),
        ("multipart_bytes=many", "is not a size"),
        ("multipart_bytes=1MiB", "from 5 MiB"),
        ("requester_pays=maybe", "must be true or false"),
        ("storage_class=STANDARD%20IA", "must be a storage class"),
        ("sse_customer_key=x", "no parameter 'sse_customer_key'"),
    ],
)
def test_what_cannot_be_is_refused(parameter: str, said: str) -> None:
    """One line says which parameter, and what it may be."""
    with pytest.raises(UsageError, match=said) as refused:
        sink_at(parse(f"s3://lake/orders?{parameter}"), compression=None)
    assert "\n" not in str(refused.value)


def test_an_endpoint_with_a_password_is_refused_without_repeating_it() -> None:
    """Secrets never stand in a URL, not in one inside of it either."""
    with pytest.raises(UsageError, match="holds a user or a password") as refused:
        sink_at(parse("s3://lake/orders?endpoint_url=http://me:s3cret@localhost:9000"), compression=None)
    assert "s3cret" not in str(refused.value)
