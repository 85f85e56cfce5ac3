"""How objects are written into a bucket (encryption, storage class, access, tags), in boto3's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias
from urllib.parse import quote, urlencode

from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.locations import Location

Purpose: TypeAlias = Literal["working", "entry", "part"]
"""What an object is for: our own bookkeeping and staging; ``manifest.json`` and the like; a final part."""

MIN_PART_BYTES = 5 * 1024**2
MAX_OBJECT_BYTES = 5 * 1024**3

_ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")
_ACLS = (
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
)
_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}
_MAX_TAGS = 10
_MAX_TAG_KEY, _MAX_TAG_VALUE = 128, 256
_TAG = re.compile(r"[\w \t+\-=.:/@]*")
_KMS_KEY = re.compile(r"[A-Za-z0-9:/_.-]{1,2048}")
_STORAGE_CLASS = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ACCOUNT = re.compile(r"\d{12}")


@dataclass(frozen=True, kw_only=True, repr=False)
class S3Settings(Value):
    """What is sent along with the requests to S3; what is left out is the bucket's own choice.

    Encryption and ACL hold for every object. Tags hold for what readers see: the final parts,
    ``manifest.json``, ``_SUCCESS``. The storage class holds for the final parts only: staged objects live for
    hours, and the colder classes charge for 30 days at least. Customer-provided keys (SSE-C) are not
    supported: a key would have to be sent with every request, and to lie in the DAG.

    :param server_side_encryption: ``"AES256"``, ``"aws:kms"`` or ``"aws:kms:dsse"``.
    :param sse_kms_key_id: id, ARN or alias (``"alias/lake"``) of the key, for ``aws:kms``. Default: the
        account's own key for S3.
    :param bucket_key_enabled: True spares calls to KMS, for ``aws:kms``.
    :param storage_class: ``"STANDARD_IA"``, ``"INTELLIGENT_TIERING"``, ``"GLACIER_IR"``, … (any that the
        store knows).
    :param acl: a canned ACL, as ``"bucket-owner-full-control"``.
    :param tags: at most ten; not more than 128 characters for a key and 256 for a value.
    :param expected_bucket_owner: account (12 digits) that must own the bucket, else every request is refused.
    :param requester_pays: True accepts the costs in a bucket whose requesters pay.
    :param multipart_bytes: send larger objects in parts of this size, 5 MiB to 5 GiB. Default: every object
        in one request.
    """

    __templated__: ClassVar[tuple[str, ...]] = (
        "server_side_encryption",
        "sse_kms_key_id",
        "storage_class",
        "acl",
        "tags",
        "expected_bucket_owner",
    )

    server_side_encryption: str | None = None
    sse_kms_key_id: str | None = None
    bucket_key_enabled: bool | None = None
    storage_class: str | None = None
    acl: str | None = None
    tags: Mapping[str, str] | None = None
    expected_bucket_owner: str | None = None
    requester_pays: bool = False
    multipart_bytes: int | None = None

    @property
    def archives(self) -> bool:
        """Whether final parts have to be restored before anybody can read them."""
        return self.storage_class in _ARCHIVES

    @override
    def check(self) -> None:
        """Refuse what S3 would refuse, hours before it would.

        :raises UsageError: which setting, what it holds, what it may hold.
        """
        _one_of("server_side_encryption", self.server_side_encryption, _ENCRYPTIONS)
        _one_of("acl", self.acl, _ACLS)
        _like("sse_kms_key_id", self.sse_kms_key_id, _KMS_KEY, "a key's id, ARN or alias (alias/lake)")
        _like("storage_class", self.storage_class, _STORAGE_CLASS, "a storage class as STANDARD_IA")
        _like("expected_bucket_owner", self.expected_bucket_owner, _ACCOUNT, "an account of 12 digits")
        self._check_kms()
        _check_tags(self.tags or {})
        size = self.multipart_bytes
        if size is not None and not MIN_PART_BYTES <= size <= MAX_OBJECT_BYTES:
            raise UsageError(f"multipart_bytes={size!r}: must be from 5 MiB ({MIN_PART_BYTES}) to 5 GiB")

    def _check_kms(self) -> None:
        encryption = self.server_side_encryption
        if self.sse_kms_key_id is not None and encryption not in {"aws:kms", "aws:kms:dsse"}:
            raise UsageError(
                f"sse_kms_key_id={self.sse_kms_key_id!r} needs server_side_encryption='aws:kms' "
                f"(or 'aws:kms:dsse'), not {encryption!r}"
            )
        if self.bucket_key_enabled is not None and encryption != "aws:kms":
            raise UsageError(
                f"bucket_key_enabled={self.bucket_key_enabled!r} needs server_side_encryption='aws:kms', "
                f"not {encryption!r}"
            )


def check_s3_settings(settings: S3Settings | None, location: Location) -> None:
    """Refuse settings for S3 beside a place that is no bucket.

    :raises UsageError: there are some.
    """
    if settings is not None and location.scheme != "s3":
        raise UsageError(f"s3_settings are for s3:// URLs; leave them out with {location.url}")


def request_arguments(settings: S3Settings) -> dict[str, Any]:
    """Return what boto3 takes with every request."""
    return _given(
        ExpectedBucketOwner=settings.expected_bucket_owner,
        RequestPayer="requester" if settings.requester_pays else None,
    )


def object_arguments(settings: S3Settings, purpose: Purpose) -> dict[str, Any]:
    """Return what boto3 takes with a request that makes an object."""
    return _given(
        ServerSideEncryption=settings.server_side_encryption,
        SSEKMSKeyId=settings.sse_kms_key_id,
        BucketKeyEnabled=settings.bucket_key_enabled,
        ACL=settings.acl,
        Tagging=encode_tags(settings.tags) if settings.tags and purpose != "working" else None,
        StorageClass=settings.storage_class if purpose == "part" else None,
    )


def object_actions(settings: S3Settings, purpose: Purpose) -> str:
    """Name the rights that making an object takes, as policies name them."""
    actions = ["s3:PutObject"]
    if settings.acl is not None:
        actions.append("s3:PutObjectAcl")
    if settings.tags and purpose != "working":
        actions.append("s3:PutObjectTagging")
    return ", ".join(actions)


def encode_tags(tags: Mapping[str, str]) -> str:
    """Write tags as the header of a request has them: percent-encoded, a space as ``%20``."""
    return urlencode(tags, quote_via=quote, safe="")


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise UsageError(f"{name}={value!r}: must be one of {', '.join(map(repr, allowed))}, or None")


def _like(name: str, value: str | None, pattern: re.Pattern[str], what: str) -> None:
    if value is not None and not pattern.fullmatch(value):
        raise UsageError(f"{name}={value!r}: must be {what}, or None")


def _check_tags(tags: Mapping[str, str]) -> None:
    if len(tags) > _MAX_TAGS:
        raise UsageError(f"tags: {len(tags)} were given, an object takes {_MAX_TAGS} at most")
    for key, value in tags.items():
        _check_tag(f"the key of tag {key!r}", key, _MAX_TAG_KEY)
        _check_tag(f"tags[{key!r}]={value!r}", value, _MAX_TAG_VALUE)
        if not key or key.lower().startswith("aws:"):
            raise UsageError(f"tags: {key!r} cannot be a key; it must not be empty nor begin with 'aws:'")


def _check_tag(what: str, text: object, longest: int) -> None:
    if not isinstance(text, str) or not _TAG.fullmatch(text):
        raise UsageError(f"{what}: must be text of letters, digits, spaces and + - = . _ : / @")
    # S3 counts in UTF-16.
    if len(text.encode("utf-16-le")) > 2 * longest:
        raise UsageError(f"{what}: is longer than {longest} characters")
