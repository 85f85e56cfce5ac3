"""Objects in a bucket, by boto3; tried again by whoever calls, not in here."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from typing_extensions import override

from airflow_batchkit.connectors.object_storage.errors import (
    answer_of,
    is_expired,
    is_not_implemented,
    of_refused_delete,
    s3_errors,
)
from airflow_batchkit.connectors.object_storage.locations import Location, check_key
from airflow_batchkit.connectors.object_storage.patience import some_at_once
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
from airflow_batchkit.engine.exceptions import BatchkitError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import PutObjectRequestTypeDef

T = TypeVar("T", bound=Mapping[str, Any])


class S3Store(ObjectStore):
    """Objects below a prefix of a bucket.

    :param location: bucket and prefix.
    :param connect: makes a new client, whose own retries are off; called again when credentials have expired.
    :param log: where to say that the store ignores conditions.
    """

    def __init__(self, location: Location, connect: Callable[[], S3Client], *, log: logging.Logger) -> None:
        self._location = location
        self._connect = connect
        self._log = log
        self._lock = threading.Lock()
        self._client: S3Client | None = None
        self._conditional = True
        self._clock_offset = 0.0

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
        return time.time() + self._clock_offset

    @override
    def check(self) -> None:
        self._call(
            f"listing of {self._location.url}",
            lambda client: client.list_objects_v2(
                Bucket=self._location.bucket, Prefix=f"{self._location.prefix}/", MaxKeys=1
            ),
        )

    @override
    def put(
        self,
        key: str,
        content: Content,
        *,
        metadata: Mapping[str, str] | None = None,
        condition: Condition | None = None,
    ) -> str:
        request: PutObjectRequestTypeDef = {
            "Bucket": self._location.bucket,
            "Key": self._full(key),
            "Body": content,
            "Metadata": dict(metadata or {}),
        }
        if condition is None:
            return self._put(key, request)
        try:
            return self._put_if(key, request, condition)
        except ConflictError:
            # The first try may have been applied and only its answer lost: then the object is ours, as it is.
            return self._own_write(key, request["Metadata"][SHA256])

    @override
    def probe_conditions(self, key: str, content: bytes) -> None:
        request: PutObjectRequestTypeDef = {
            "Bucket": self._location.bucket,
            "Key": self._full(key),
            "Body": content,
        }
        self._put(key, request)
        with suppress(ConflictError):
            self._put_if(key, request, Condition())
            if self._conditional:
                self._ignored()

    @override
    @contextmanager
    def read(self, key: str) -> Iterator[Reading]:
        doing = f"read of {self._url(key)}"
        answer = self._call(
            doing,
            lambda client: client.get_object(Bucket=self._location.bucket, Key=self._full(key)),
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
        answer = self._call(
            f"look at {self._url(key)}",
            lambda client: client.head_object(Bucket=self._location.bucket, Key=self._full(key)),
        )
        return Head(size=answer["ContentLength"], metadata=answer["Metadata"])

    @override
    def copy(self, source: str, target: str) -> None:
        bucket = self._location.bucket
        self._call(
            f"copy of {self._url(source)} to {target}",
            lambda client: client.copy_object(
                Bucket=bucket,
                Key=self._full(target),
                CopySource={"Bucket": bucket, "Key": self._full(source)},
            ),
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
        """Do nothing: a bucket has no folders, and what is not written whole is not there."""

    @override
    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close()

    def _put(self, key: str, request: PutObjectRequestTypeDef) -> str:
        def send(client: S3Client) -> Mapping[str, Any]:
            body = request["Body"]
            # Of bytes botocore would make a copy, to send them together with the request's header.
            file = io.BytesIO(body) if isinstance(body, bytes) else cast("BinaryIO", body)
            file.seek(0)
            sent: PutObjectRequestTypeDef = {**request, "Body": file}
            return client.put_object(**sent)

        return str(self._call(f"write of {self._url(key)}", send)["ETag"])

    def _put_if(self, key: str, request: PutObjectRequestTypeDef, condition: Condition) -> str:
        if self._conditional:
            try:
                if condition.etag is None:
                    return self._put(key, {**request, "IfNoneMatch": "*"})
                return self._put(key, {**request, "IfMatch": condition.etag})
            except MissingObjectError as error:
                raise ConflictError(str(error)) from error
            except BatchkitError as error:
                if not is_not_implemented(error):
                    raise
                self._ignored()
        if self._etag(key) != condition.etag:
            raise ConflictError(f"write of {self._url(key)}: somebody else wrote it")
        return self._put(key, request)

    def _own_write(self, key: str, sha256: str) -> str:
        with suppress(MissingObjectError):
            if self.head(key).metadata.get(SHA256) == sha256:
                etag = self._etag(key)
                if etag is not None:
                    return etag
        raise ConflictError(f"write of {self._url(key)}: somebody else wrote it first")

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
        doing = f"delete of {len(keys):,} objects, {self._url(keys[0])} first"
        answer = self._call(
            doing,
            lambda client: client.delete_objects(
                Bucket=self._location.bucket,
                Delete={"Objects": [{"Key": self._full(key)} for key in keys], "Quiet": True},
            ),
        )
        for refused in answer.get("Errors", ()):
            error = of_refused_delete(refused, doing)
            if not isinstance(error, MissingObjectError):
                raise error

    def _pages(self, prefix: str, **request: Any) -> Iterator[Mapping[str, Any]]:
        request |= {"Bucket": self._location.bucket, "Prefix": f"{self._location.prefix}/{prefix}"}
        while True:
            answer = self._call(
                f"listing of {self._location.url}/{prefix}",
                lambda client: client.list_objects_v2(**request),
            )
            yield answer
            if not answer.get("IsTruncated"):
                return
            request["ContinuationToken"] = answer["NextContinuationToken"]

    def _call(self, doing: str, request: Callable[[S3Client], T]) -> T:
        client = self._connected()
        try:
            with s3_errors(doing):
                answer = request(client)
        except BatchkitError as error:
            self._learn_time(answer_of(error))
            if not is_expired(error):
                raise
            self._forget(client)
            with s3_errors(doing):
                answer = request(self._connected())
        self._learn_time(answer)
        return answer

    def _connected(self) -> S3Client:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _forget(self, client: S3Client) -> None:
        # Static or assumed credentials that expire are not refreshed by botocore: only a new client helps.
        with self._lock:
            if self._client is client:
                self._client = None
        client.close()

    def _learn_time(self, answer: Mapping[str, Any]) -> None:
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if date:
            with suppress(ValueError):
                self._clock_offset = parsedate_to_datetime(date).timestamp() - time.time()

    def _full(self, key: str) -> str:
        return check_key(f"{self._location.prefix}/{key}")

    def _url(self, key: str) -> str:
        return f"{self._location.url}/{key}"
