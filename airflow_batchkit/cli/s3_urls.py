"""What follows ``?`` in an ``s3://`` URL: where the store is, and how objects are written there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from airflow_batchkit.connectors.object_storage.s3_settings import S3Settings
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.hooks.switches import as_switch

_STYLES = ("auto", "path", "virtual")


@dataclass(frozen=True, kw_only=True)
class S3Account:
    """Which store an ``s3://`` URL means; what is None is boto3's own choice.

    :param conn_id: connection whose keys serve, in ``AIRFLOW_CONN_<ID>``.
    :param endpoint_url: where the store answers.
    :param region_name: of the bucket.
    :param addressing_style: ``path``, ``virtual`` or ``auto``.
    """

    conn_id: str | None = None
    endpoint_url: str | None = None
    region_name: str | None = None
    addressing_style: str | None = None


_ACCOUNT = tuple(S3Account.__dataclass_fields__)


def s3_name(parameters: Mapping[str, str]) -> str:
    """Name the account that a URL's parameters mean, as :func:`s3_account` reads it.

    :raises UsageError: a parameter cannot be what it is.
    """
    account = {name: value for name, value in parameters.items() if name in _ACCOUNT}
    style = account.get("addressing_style", "auto")
    if style not in _STYLES:
        raise UsageError(f"addressing_style={style!r}: must be one of {', '.join(_STYLES)}")
    _check_endpoint(account.get("endpoint_url"))
    return urlencode(account)


def s3_account(name: str) -> S3Account:
    """Read the name of an account."""
    return S3Account(**dict(parse_qsl(name)))


def s3_settings(parameters: Mapping[str, str]) -> S3Settings | None:
    """Read how objects are to be written, None where the URL does not say.

    :raises UsageError: which parameter, and what it may be.
    """
    given = {name: _READERS.get(name, str)(value) for name, value in parameters.items() if name in _SETTINGS}
    return S3Settings(**given) if given else None


def _check_endpoint(url: str | None) -> None:
    if url is None:
        return
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise UsageError("endpoint_url holds a user or a password; take it out and set the AWS_ variables")
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise UsageError("endpoint_url must be http://host:port or https://host:port")


def _tags(text: str) -> dict[str, str]:
    """Read ``team=search,env=prod``."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(separator for _, separator, _ in pairs):
        raise UsageError(f"tags={text!r}: must be key=value, several with a comma between")
    return {key: value for key, _, value in pairs}


def _size(text: str) -> int:
    from airflow_batchkit.cli.options import size_of

    size = size_of(text)
    if size is None:
        raise UsageError(f"multipart_bytes={text!r}: is not a size; write for example 64MiB")
    return size


_READERS: Mapping[str, Callable[[str], Any]] = {
    "bucket_key_enabled": lambda text: as_switch("bucket_key_enabled", text),
    "requester_pays": lambda text: as_switch("requester_pays", text),
    "tags": _tags,
    "multipart_bytes": _size,
}
_SETTINGS = tuple(S3Settings.__dataclass_fields__)

PARAMETERS = frozenset({*_ACCOUNT, *_SETTINGS})
