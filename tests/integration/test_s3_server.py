"""The tests' own S3 API keeps the promises that publishing relies on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.s3 import S3Server

pytestmark = pytest.mark.s3


def test_a_conditional_put_takes_only_the_version_that_it_names(s3_server: S3Server, bucket: str) -> None:
    """If-None-Match refuses a second creation and If-Match refuses an older version, each with 412."""
    from botocore.exceptions import ClientError

    with s3_server.client() as client:
        first = client.put_object(Bucket=bucket, Key="manifest.json", Body=b"1", IfNoneMatch="*")
        with pytest.raises(ClientError) as created_again:
            client.put_object(Bucket=bucket, Key="manifest.json", Body=b"2", IfNoneMatch="*")
        client.put_object(Bucket=bucket, Key="manifest.json", Body=b"3", IfMatch=first["ETag"])
        with pytest.raises(ClientError) as outdated:
            client.put_object(Bucket=bucket, Key="manifest.json", Body=b"4", IfMatch=first["ETag"])
        body = client.get_object(Bucket=bucket, Key="manifest.json")["Body"].read()

    statuses = [e.value.response["ResponseMetadata"]["HTTPStatusCode"] for e in (created_again, outdated)]
    assert (statuses, body) == ([412, 412], b"3")


def test_metadata_and_order_survive(s3_server: S3Server, bucket: str) -> None:
    """User metadata comes back with HEAD and after a copy, and keys are listed in order of their bytes."""
    with s3_server.client() as client:
        for key in ("b", "a/2", "a/10"):
            client.put_object(Bucket=bucket, Key=key, Body=key.encode(), Metadata={"records": "7"})
        client.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "b"})
        keys = [found["Key"] for found in client.list_objects_v2(Bucket=bucket)["Contents"]]

        assert client.head_object(Bucket=bucket, Key="c")["Metadata"] == {"records": "7"}
    assert keys == ["a/10", "a/2", "b", "c"]
