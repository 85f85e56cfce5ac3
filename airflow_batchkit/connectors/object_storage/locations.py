"""URLs of places for objects, and the names of objects below them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote, unquote

from airflow_batchkit.engine.exceptions import UsageError

MAX_KEY_BYTES = 1024
_MAX_SEGMENT = 150
# What this package adds below a prefix: "/_batchkit/<run>/<token>/part-…" or "/part-<partition>-<number>-…".
_ROOM_FOR_NAMES = 400
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_KEPT = "._-=+,@ "


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A place for objects: a prefix in a bucket, or a folder.

    :param scheme: ``s3`` or ``file``.
    :param bucket: empty for ``file``.
    :param prefix: without slashes at its ends; for ``file`` the absolute path.
    """

    scheme: str
    bucket: str
    prefix: str

    @property
    def url(self) -> str:
        """The location as people write it."""
        return f"s3://{self.bucket}/{self.prefix}" if self.scheme == "s3" else f"file://{self.prefix}"


def parse_location(url: str) -> Location:
    """Take a URL apart.

    :param url: ``s3://bucket/prefix`` or ``file:///path``.
    :raises UsageError: another form, a user or password in it, or a part that is empty or leaves its place;
        the message never repeats a secret.
    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in {"s3", "file"}:
        raise UsageError(
            f"{_printable(url)} is no place for objects; write s3://bucket/prefix or file:///path"
        )
    if "@" in rest.partition("/")[0]:
        raise UsageError(
            f"the {scheme}:// URL holds a user or a password; remove it and put it into the connection"
        )
    return _bucket_prefix(rest) if scheme == "s3" else _folder(rest)


def check_key(key: str) -> str:
    """Return a key when it is safe below a prefix.

    :raises UsageError: it has an empty, ``.`` or ``..`` segment or a control character, or is too long.
    """
    _check_segments(key, what="the object name")
    if len(key.encode()) > MAX_KEY_BYTES:
        raise UsageError(
            f"an object name of {len(key.encode()):,} bytes is too long (at most {MAX_KEY_BYTES:,})"
        )
    return key


def segment(text: str) -> str:
    """Turn any text into one segment of an object name: percent-encoded, never ``.`` or ``..``, bounded."""
    encoded = quote(text, safe=_KEPT, errors="surrogatepass")
    if encoded.endswith("="):  # which :func:`check_key` takes for a template that rendered to nothing
        encoded = f"{encoded[:-1]}%3D"
    if not encoded.strip(". "):
        encoded = "".join(f"%{ord(character):02X}" for character in encoded) or "%"
    if len(encoded) > _MAX_SEGMENT:
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
        encoded = f"{encoded[:_MAX_SEGMENT].rstrip('%')}-{digest}"
    return encoded


def _bucket_prefix(rest: str) -> Location:
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{_printable(bucket)} is no bucket name; write s3://bucket/prefix")
    if not prefix:
        raise UsageError(
            f"s3://{bucket} names no prefix: the output needs a folder of its own, as s3://{bucket}/orders "
            "(was a template rendered empty?)"
        )
    _check_segments(prefix, what=f"the prefix of s3://{bucket}")
    if len(prefix.encode()) > MAX_KEY_BYTES - _ROOM_FOR_NAMES:
        raise UsageError(
            f"the prefix of s3://{bucket} is longer than {MAX_KEY_BYTES - _ROOM_FOR_NAMES} bytes"
        )
    return Location(scheme="s3", bucket=bucket, prefix=prefix)


def _folder(rest: str) -> Location:
    host, _, path = rest.partition("/")
    if host not in {"", "localhost"}:
        raise UsageError(f"a path on this machine has three slashes: file:///{_printable(host)}/…")
    path = unquote(path).strip("/")
    if not path:
        raise UsageError("file:/// names no folder (was a template rendered empty?)")
    _check_segments(path, what="the path of the file:// URL")
    return Location(scheme="file", bucket="", prefix=str(PurePosixPath("/", path)))


def _check_segments(path: str, *, what: str) -> None:
    if _CONTROL.search(path):
        raise UsageError(f"{what} holds a control character: {path!a}")
    for part in path.split("/"):
        if not part or part in {".", ".."}:
            raise UsageError(f"{what} has a segment that is empty, '.' or '..': {_printable(path)}")
        if part.endswith("="):
            raise UsageError(
                f"{what} has the segment {part!r} without a value: was a template rendered empty?"
            )


def _printable(text: str) -> str:
    return ascii(text.rpartition("@")[2])
