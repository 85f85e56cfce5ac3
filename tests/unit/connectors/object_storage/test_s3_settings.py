"""Settings for S3: what S3 would refuse is refused when they are made."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pytest

from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink, S3Settings
from airflow_batchkit.connectors.object_storage.s3_settings import (
    encode_tags,
    object_actions,
    object_arguments,
    request_arguments,
)
from airflow_batchkit.engine.exceptions import UsageError

KEY = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
WHOLE = S3Settings(
    server_side_encryption="aws:kms",
    sse_kms_key_id="alias/lake",
    bucket_key_enabled=True,
    storage_class="STANDARD_IA",
    acl="bucket-owner-full-control",
    tags={"team": "search"},
    expected_bucket_owner="123456789012",
    requester_pays=True,
)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"server_side_encryption": "aes256"}, "must be one of 'AES256', 'aws:kms', 'aws:kms:dsse'"),
        ({"sse_kms_key_id": KEY}, "needs server_side_encryption='aws:kms'"),
        (
            {"server_side_encryption": "AES256", "sse_kms_key_id": KEY},
            "needs server_side_encryption='aws:kms'",
        ),
        ({"server_side_encryption": "aws:kms", "sse_kms_key_id": "my key"}, "id, ARN or alias"),
        ({"bucket_key_enabled": True}, "needs server_side_encryption='aws:kms'"),
        ({"server_side_encryption": "aws:kms:dsse", "bucket_key_enabled": True}, "needs server_side"),
        ({"storage_class": "STANDARD IA"}, "storage class as STANDARD_IA"),
        ({"acl": "bucket_owner_full_control"}, "'bucket-owner-full-control'"),
        ({"expected_bucket_owner": "12345"}, "12 digits"),
        ({"multipart_bytes": 1024}, "from 5 MiB"),
        ({"multipart_bytes": 6 * 1024**3}, "to 5 GiB"),
        ({"tags": {str(number): "x" for number in range(11)}}, "11 were given, an object takes 10"),
        ({"tags": {"": "x"}}, "must not be empty"),
        ({"tags": {"AWS:x": "x"}}, "nor begin with 'aws:'"),
        ({"tags": {"k" * 129: "x"}}, "longer than 128"),
        ({"tags": {"k": "v" * 257}}, "longer than 256"),
        ({"tags": {"k": "\U0001d552" * 129}}, "longer than 256"),
        ({"tags": {"k": "a&b"}}, "letters, digits, spaces"),
        ({"tags": {"k": "a\nb"}}, "letters, digits, spaces"),
        ({"tags": {"k": 5}}, "must be text"),
    ],
)
def test_what_s3_would_refuse_is_refused_early(settings: dict[str, Any], said: str) -> None:
    """One line: which setting, what it holds, what it may hold."""
    with pytest.raises(UsageError, match=said) as refused:
        S3Settings(**settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"server_side_encryption": "AES256"},
        {"server_side_encryption": "aws:kms:dsse", "sse_kms_key_id": KEY},
        {"server_side_encryption": "aws:kms", "sse_kms_key_id": "alias/lake", "bucket_key_enabled": False},
        {"storage_class": "DEEP_ARCHIVE", "acl": "private"},
        {"tags": {"k" * 128: "v" * 256, "Größe 1": "a+b=c-d._:/@", "empty": ""}},
        {"tags": {"ds": "{{ ds }}"}, "storage_class": "{{ params.class }}"},
    ],
)
def test_what_s3_takes_is_taken(settings: dict[str, Any]) -> None:
    """Everything that S3 documents, and templates, which are checked when they are rendered."""
    S3Settings(**settings)


def test_each_object_gets_what_is_meant_for_it() -> None:
    """Encryption and ACL are on every object, tags on what readers see, the storage class on final parts."""
    everywhere = {
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "alias/lake",
        "BucketKeyEnabled": True,
        "ACL": "bucket-owner-full-control",
    }
    assert object_arguments(WHOLE, "working") == everywhere
    assert object_arguments(WHOLE, "entry") == {**everywhere, "Tagging": "team=search"}
    assert object_arguments(WHOLE, "part") == {
        **everywhere,
        "Tagging": "team=search",
        "StorageClass": "STANDARD_IA",
    }
    assert request_arguments(WHOLE) == {"ExpectedBucketOwner": "123456789012", "RequestPayer": "requester"}
    assert object_arguments(S3Settings(), "part") == request_arguments(S3Settings()) == {}


def test_rights_are_named_as_policies_name_them() -> None:
    """Tags and ACLs take rights of their own."""
    assert object_actions(WHOLE, "working") == "s3:PutObject, s3:PutObjectAcl"
    assert object_actions(WHOLE, "part") == "s3:PutObject, s3:PutObjectAcl, s3:PutObjectTagging"
    assert object_actions(S3Settings(), "part") == "s3:PutObject"


def test_tags_survive_their_encoding() -> None:
    """Spaces, signs and letters outside of ASCII arrive as they were."""
    tags = {"Größe 1": "a+b=c/d", "k": ""}
    encoded = encode_tags(tags)
    assert dict(parse_qsl(encoded, keep_blank_values=True)) == tags
    assert encoded.isascii()
    assert "+" not in encoded


def test_settings_beside_a_folder_are_refused() -> None:
    """Settings for S3 that would have no effect are a mistake."""
    with pytest.raises(UsageError, match="s3_settings are for s3:// URLs"):
        ObjectStorageSink(url="file:///data", s3_settings=WHOLE)
    with pytest.raises(UsageError, match="s3_settings are for s3:// URLs"):
        DeadLetters("file:///data", s3_settings=WHOLE)
