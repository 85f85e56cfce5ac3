"""The few operations that publishing needs from a place for objects, whatever keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeAlias

from airflow_batchkit.connectors.object_storage.locations import Location
from airflow_batchkit.engine.exceptions import PermanentError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from airflow_batchkit.connectors.object_storage.s3_settings import S3Settings
    from airflow_batchkit.engine.source import OpenContext

Content: TypeAlias = bytes | BinaryIO
"""Bytes, or an open file whose position is at its beginning and that can seek."""

SHA256 = "sha256"
NAME = "name"


class MissingObjectError(PermanentError):
    """There is no such object."""


class ConflictError(PermanentError):
    """The object is not as the condition of a write says: somebody else wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What is known of an object without reading it.

    :param size: bytes.
    :param metadata: what it was put with.
    """

    size: int
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """An object being read.

    :param etag: changes whenever the content does; opaque.
    :param file: its content, to be read once, forward.
    """

    etag: str
    file: BinaryIO


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What must hold for a write to happen.

    :param etag: the object still has this etag; None: there is no such object yet.
    """

    etag: str | None = field(default=None)


class ObjectStore(Protocol):
    """Objects below one location; keys are relative to it and checked, so that none can leave it.

    Every call raises ``TransientError`` (``PushbackError`` where the other side asks to slow down),
    ``PermanentError`` or ``UsageError``; nothing is tried again in here, except as :meth:`put` says.
    """

    @property
    def location(self) -> Location:
        """The place."""
        ...

    @property
    def conditional(self) -> bool:
        """False once it turned out that the place ignores conditions."""
        ...

    def now(self) -> float:
        """Return seconds since the epoch by the place's own clock, as far as it has one."""
        ...

    def check(self) -> None:
        """Look whether the place is there and answers; writes nothing.

        :raises UsageError: no such bucket, no permission, not a folder.
        """
        ...

    def put(
        self,
        key: str,
        content: Content,
        *,
        metadata: Mapping[str, str] | None = None,
        condition: Condition | None = None,
        visible: bool = False,
    ) -> str:
        """Write an object, whole or not at all, durable on return.

        A conditional write needs ``metadata[SHA256]``: when the condition does not hold, but the object there
        has this sum, it was this very write whose answer was lost, and that is a success.

        :param key: name of the object.
        :param content: what to write.
        :param metadata: kept with the object where it lies; a copy need not have it.
        :param condition: None: replace whatever is there.
        :param visible: whether readers of the output look at it, or only this package.
        :returns: the new etag.
        :raises ConflictError: the condition does not hold.
        """
        ...

    def rehearse(self, key: str, content: bytes) -> None:
        """Write an object that nobody else writes, and try out at it what publishing will need.

        A right that is missing, or a setting that the place does not know, is found here and not hours later.
        Where conditions are not heeded, :attr:`conditional` is False from now on, and the log says so.

        :raises UsageError: what is missing, or wrong.
        """
        ...

    def read(self, key: str) -> AbstractContextManager[Reading]:
        """Open an object for a ``with`` block.

        :raises MissingObjectError: there is none.
        """
        ...

    @contextmanager
    def stream(self, key: str) -> Iterator[BinaryIO]:
        """Open an object for a ``with`` block, to be read once, forward, where nobody asks for its etag.

        :raises MissingObjectError: there is none.
        """
        with self.read(key) as reading:
            yield reading.file

    def head(self, key: str) -> Head:
        """Look at an object.

        :raises MissingObjectError: there is none.
        """
        ...

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the place, replacing what is there; may be repeated.

        :raises MissingObjectError: the source is not there (any more).
        """
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are as good as deleted."""
        ...

    def keys(self, prefix: str, *, page: int = 1000) -> Iterator[str]:
        """List the keys that begin with ``prefix``, in the order of their bytes.

        :param page: keys held in memory at a time, where the place delivers them in pages.
        """
        ...

    def folders(self, folder: str) -> list[str]:
        """List the folders right below a folder; both with a slash at the end."""
        ...

    def clean(self, folder: str) -> None:
        """Remove what a folder still holds besides objects (temporary files, empty folders, uploads)."""
        ...

    def close(self) -> None:
        """Close sockets. Never raises."""
        ...


def open_store(
    location: Location, conn_id: str, context: OpenContext, *, s3_settings: S3Settings | None = None
) -> ObjectStore:
    """Make the store for a location.

    :param conn_id: name of the connection; not used for ``file://``.
    :param s3_settings: how objects are written to S3; not used for ``file://``.
    """
    if location.scheme == "file":
        from airflow_batchkit.connectors.object_storage.file_store import FileStore

        return FileStore(location)
    from airflow_batchkit.connectors.object_storage.s3_store import S3Store

    def connect() -> S3Client:
        client: S3Client = context.connections.client("s3", conn_id, timeouts=context.timeouts)
        return client

    return S3Store(location, connect, settings=s3_settings, timeouts=context.timeouts, log=context.log)
