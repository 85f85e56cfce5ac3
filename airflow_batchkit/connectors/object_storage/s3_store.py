"""Objects in a bucket, by boto3; tried again by whoever calls, not in here."""

from __future__ import annotations

import io
import logging
import os
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote_plus

from typing_extensions import override

from airflow_batchkit.connectors.object_storage.errors import (
    is_denied,
    is_not_implemented,
    of_another_request,
    of_refused_delete,
    s3_errors,
)
from airflow_batchkit.connectors.object_storage.locations import Location
from airflow_batchkit.connectors.object_storage.s3_calls import S3Calls
from airflow_batchkit.connectors.object_storage.s3_multipart import (
    abort_uploads,
    put_in_parts,
    rehearse_upload,
)
from airflow_batchkit.connectors.object_storage.s3_settings import (
    MAX_OBJECT_BYTES,
    Purpose,
    S3Settings,
    object_actions,
    object_arguments,
)
from airflow_batchkit.connectors.object_storage.store import (
    SHA256,
    Condition,
    ConflictError,
    Content,
    Head,
    MissingObjectError,
    ObjectStore,
    Reading,
)
from airflow_batchkit.connectors.patience import some_at_once
from airflow_batchkit.engine.exceptions import BatchkitError, PermanentError, UsageError
from airflow_batchkit.engine.policies import Timeouts

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T", bound=Mapping[str, Any])

_READ = "s3:GetObject"
_LIST = "s3:ListBucket"
_DELETE = "s3:DeleteObject"
_OF_AN_OBJECT = ("ETag", "LastModified")
_CHECKSUM = "ChecksumSHA256"


class S3Store(ObjectStore):
    """Objects below a prefix of a bucket.

    :param location: bucket and prefix.
    :param connect: makes a new client, whose own retries are off; called again when credentials have expired.
    :param settings: how objects are written.
    :param timeouts: of the requests. Default: the defaults.
    :param log: where to say that the store ignores conditions.
    """

    def __init__(
        self,
        location: Location,
        connect: Callable[[], S3Client],
        *,
        settings: S3Settings | None = None,
        timeouts: Timeouts | None = None,
        log: logging.Logger,
    ) -> None:
        self._settings = settings or S3Settings()
        self._calls = S3Calls(
            location, connect, settings=self._settings, timeouts=timeouts or Timeouts(), log=log
        )
        self._location = location
        self._log = log
        self._conditional = True
        self._confirms = False

    @property
    @override
    def location(self) -> Location:
        return self._location

    @property
    @override
    def conditional(self) -> bool:
        return self._conditional

    @override
    def now(self) -> float:
        return self._calls.now()

    @override
    def check(self) -> None:
        self._listing("", MaxKeys=1)

    @override
    def put(
        self,
        key: str,
        content: Content,
        *,
        metadata: Mapping[str, str] | None = None,
        condition: Condition | None = None,
        visible: bool = False,
    ) -> str:
        writing = _Writing(content, metadata=dict(metadata or {}), purpose="entry" if visible else "working")
        if condition is None:
            return self._put(key, writing)
        try:
            return self._put_if(key, writing, condition)
        except ConflictError:
            # The first try may have been applied and only its answer lost: then the object is ours, as it is.
            return self._own_write(key, writing.metadata[SHA256])

    @override
    def rehearse(self, key: str, content: bytes) -> None:
        writing = _Writing(content, metadata={}, purpose="working")
        self._put(key, writing)
        with suppress(ConflictError):
            for _ in range(2):  # one answer alone may be that of the write before
                self._put_if(key, writing, Condition())
            if self._conditional:
                self._ignored()
        trial = f"{key}.trial"
        self.copy(key, trial)
        self.delete([trial])
        if self._settings.multipart_bytes is not None:
            rehearse_upload(self._calls, trial)

    @override
    @contextmanager
    def read(self, key: str) -> Iterator[Reading]:
        doing = f"read of {self._calls.url(key)}"
        request = self._calls.object(key)
        answer = self._existing(
            key, doing, lambda client: client.get_object(**request), needs=_READ, tells=_OF_AN_OBJECT
        )
        body = answer["Body"]
        try:
            with s3_errors(doing):
                yield Reading(
                    etag=answer["ETag"], file=cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", body)))
                )
        finally:
            body.close()

    @override
    def head(self, key: str) -> Head:
        request = self._calls.object(key)
        doing = f"look at {self._calls.url(key)}"
        answer = self._existing(
            key,
            doing,
            lambda client: client.head_object(**request),
            needs=_READ,
            tells=(*_OF_AN_OBJECT, "ContentLength"),
        )
        return Head(size=answer["ContentLength"], metadata=answer["Metadata"])

    @override
    def copy(self, source: str, target: str) -> None:
        request = {
            **self._calls.object(target),
            "CopySource": {"Bucket": self._location.bucket, "Key": self._calls.full(source)},
            # A copy has neither encryption, ACL nor storage class of its source, but its tags unless told.
            "TaggingDirective": "REPLACE",
            **object_arguments(self._settings, "part"),
        }
        if self._settings.expected_bucket_owner is not None:
            request["ExpectedSourceBucketOwner"] = self._settings.expected_bucket_owner
        self._existing(
            source,
            f"copy of {self._calls.url(source)} to {target}",
            lambda client: client.copy_object(**request),
            needs=f"{_READ}, {object_actions(self._settings, 'part')}",
            tells=("CopyObjectResult",),
            content=True,
        )

    @override
    def delete(self, keys: Iterable[str]) -> None:
        for some in some_at_once(keys):
            self._delete(some)

    @override
    def keys(self, prefix: str, *, page: int = 1000) -> Iterator[str]:
        skip = len(self._location.prefix) + 1
        for answer in self._pages(prefix, MaxKeys=page):
            for found in answer.get("Contents", ()):
                yield found["Key"][skip:]

    @override
    def folders(self, folder: str) -> list[str]:
        skip = len(self._location.prefix) + 1
        return [
            found["Prefix"][skip:]
            for answer in self._pages(folder, Delimiter="/")
            for found in answer.get("CommonPrefixes", ())
        ]

    @override
    def clean(self, folder: str) -> None:
        """Abort uploads; a bucket has no folders, and what was not written whole is else not there."""
        if self._settings.multipart_bytes is not None:
            abort_uploads(self._calls, folder)

    @override
    def close(self) -> None:
        self._calls.close()

    def _put(self, key: str, writing: _Writing, **condition: Any) -> str:
        made_with = {"Metadata": writing.metadata, **object_arguments(self._settings, writing.purpose)}
        needs = object_actions(self._settings, writing.purpose)
        doing = f"write of {self._calls.url(key)}"
        if writing.size > MAX_OBJECT_BYTES:
            raise PermanentError(
                f"{doing}: {writing.size:,} bytes are more than S3 copies at once ({MAX_OBJECT_BYTES:,}); "
                "lower BatchPolicy.max_bytes"
            )
        multipart = self._settings.multipart_bytes
        if multipart is not None and writing.size > multipart:
            return put_in_parts(
                self._calls,
                key,
                writing.file(),
                size=writing.size,
                needs=needs,
                made_with=made_with,
                condition=condition,
            )
        request = {**self._calls.object(key), **made_with, **condition}

        def put(client: S3Client) -> Mapping[str, Any]:
            checksum = _checksum(client, writing)
            answer = client.put_object(**request, **checksum, Body=writing.file())
            self._check_confirmed(answer, checksum, doing)
            return answer

        answer = self._calls.call(
            doing, put, needs=needs, tells=("ETag",), conditional=bool(condition), content=True
        )
        return str(answer["ETag"])

    def _check_confirmed(self, answer: Mapping[str, Any], sent: Mapping[str, str], doing: str) -> None:
        """Compare the checksum in the answer to a write; a store that has sent it once always does."""
        told = answer.get(_CHECKSUM)
        self._confirms = self._confirms or told is not None
        if sent and self._confirms and told != sent[_CHECKSUM]:
            raise of_another_request(doing)

    def _put_if(self, key: str, writing: _Writing, condition: Condition) -> str:
        if self._conditional:
            stated = {"IfNoneMatch": "*"} if condition.etag is None else {"IfMatch": condition.etag}
            try:
                return self._put(key, writing, **stated)
            except MissingObjectError as error:
                raise ConflictError(str(error)) from error
            except BatchkitError as error:
                if not is_not_implemented(error):
                    raise
                self._ignored()
        if self._etag(key) != condition.etag:
            raise ConflictError(f"write of {self._calls.url(key)}: somebody else wrote it")
        return self._put(key, writing)

    def _own_write(self, key: str, sha256: str) -> str:
        with suppress(MissingObjectError):
            if self.head(key).metadata.get(SHA256) == sha256:
                etag = self._etag(key)
                if etag is not None:
                    return etag
        raise ConflictError(f"write of {self._calls.url(key)}: somebody else wrote it first")

    def _etag(self, key: str) -> str | None:
        with suppress(MissingObjectError), self.read(key) as reading:
            return reading.etag
        return None

    def _ignored(self) -> None:
        self._conditional = False
        self._log.warning(
            "%s ignores conditional writes: two runs at once are told apart by their staging only, and not "
            "fenced when they publish; make sure that only one runs at a time (max_active_runs=1)",
            self._location.url,
        )

    def _delete(self, keys: list[str]) -> None:
        doing = f"delete of {len(keys):,} objects, {self._calls.url(keys[0])} first"
        request = {
            **self._calls.bucket,
            "Delete": {"Objects": [{"Key": self._calls.full(key)} for key in keys], "Quiet": True},
        }
        answer = self._calls.call(doing, lambda client: client.delete_objects(**request), needs=_DELETE)
        for refused in answer.get("Errors", ()):
            error = of_refused_delete(refused, doing, self._calls.hint(_DELETE))
            if not isinstance(error, MissingObjectError):
                raise error

    def _existing(
        self,
        key: str,
        doing: str,
        request: Callable[[S3Client], T],
        *,
        needs: str,
        tells: tuple[str, ...],
        content: bool = False,
    ) -> T:
        """Make a request that needs an object; tell one that is not there from one that is out of reach.

        Where listing is allowed below the prefix only, some stores answer 403 for what does not exist.
        """
        try:
            return self._calls.call(doing, request, needs=needs, tells=tells, content=content)
        except UsageError as error:
            if not is_denied(error) or next(self.keys(key, page=1), None) == key:
                raise
            raise MissingObjectError(f"{doing}: there is no such object") from error

    def _pages(self, prefix: str, **request: Any) -> Iterator[Mapping[str, Any]]:
        while True:
            answer = self._listing(prefix, **request)
            yield answer
            if not answer.get("IsTruncated"):
                return
            request["ContinuationToken"] = answer["NextContinuationToken"]

    def _listing(self, prefix: str, **request: Any) -> Mapping[str, Any]:
        whole = f"{self._location.prefix}/{prefix}"
        request |= {**self._calls.bucket, "Prefix": whole}
        doing = f"listing of {self._calls.url(prefix)}"
        answer = self._calls.call(
            doing, lambda client: client.list_objects_v2(**request), needs=_LIST, tells=("IsTruncated",)
        )
        token = request.get("ContinuationToken")
        # Some stores do not encode what they send back, and boto3 decodes it all the same.
        asked_for = answer.get("Prefix", whole) in {whole, unquote_plus(whole)}
        if not asked_for or (token is not None and token == answer.get("NextContinuationToken")):
            raise of_another_request(doing)
        return answer


def _checksum(client: S3Client, writing: _Writing) -> dict[str, Any]:
    """Have the store compare what arrives with the sha256 that the manifest will name, where it is known.

    Otherwise botocore would work out a checksum of its own; who has switched that off, for a store that does
    not know checksums, gets none.
    """
    digest = writing.metadata.get(SHA256)
    if digest is None or getattr(client.meta.config, "request_checksum_calculation", None) == "when_required":
        return {}
    return {"ChecksumAlgorithm": "SHA256", _CHECKSUM: b64encode(bytes.fromhex(digest)).decode()}


class _Writing:
    """What is to be written, ready to be sent more than once."""

    def __init__(self, content: Content, *, metadata: dict[str, str], purpose: Purpose) -> None:
        self.metadata = metadata
        self.purpose = purpose
        self._content = content
        self.size = len(content) if isinstance(content, bytes) else content.seek(0, os.SEEK_END)

    def file(self) -> BinaryIO:
        # Of bytes botocore would make a copy, to send them together with the request's header.
        file = io.BytesIO(self._content) if isinstance(self._content, bytes) else self._content
        file.seek(0)
        return file
