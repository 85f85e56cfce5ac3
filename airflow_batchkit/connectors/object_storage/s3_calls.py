"""One bucket behind a client: every request with its limits, its errors as ours, and the store's clock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_batchkit.connectors.object_storage.errors import (
    answer_of,
    is_expired,
    of_another_request,
    s3_errors,
)
from airflow_batchkit.connectors.object_storage.locations import Location, check_key
from airflow_batchkit.connectors.object_storage.s3_settings import S3Settings, request_arguments
from airflow_batchkit.connectors.object_storage.store import ConflictError
from airflow_batchkit.engine.exceptions import BatchkitError, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from airflow_batchkit.engine.policies import Timeouts

T = TypeVar("T", bound=Mapping[str, Any])


class S3Calls:
    """Makes requests for objects below a prefix of a bucket; tries none again, but with a new client once.

    :param location: bucket and prefix.
    :param connect: makes a new client, whose own retries are off; called again when credentials have expired.
    :param settings: what is sent along.
    :param timeouts: ``request`` is the limit of each request, ``batch`` of those that carry content.
    :param log: where to say what a person should know.
    """

    def __init__(
        self,
        location: Location,
        connect: Callable[[], S3Client],
        *,
        settings: S3Settings,
        timeouts: Timeouts,
        log: logging.Logger,
    ) -> None:
        self.location = location
        self._timeouts = timeouts
        self.settings = settings
        self.log = log
        self.bucket: dict[str, Any] = {"Bucket": location.bucket, **request_arguments(settings)}
        self._connect = connect
        self._lock = threading.Lock()
        self._client: S3Client | None = None
        # Against the clock that nobody sets: a jump of this machine's changes no lease.
        self._clock_offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Return seconds since the epoch by the store's clock."""
        return time.monotonic() + self._clock_offset

    def object(self, key: str) -> dict[str, Any]:
        """Return the arguments that name an object.

        :raises UsageError: the key would leave the prefix, or is too long.
        """
        return {**self.bucket, "Key": self.full(key)}

    def full(self, key: str) -> str:
        """Return an object's whole key."""
        return check_key(f"{self.location.prefix}/{key}")

    def url(self, key: str) -> str:
        """Return an object as people write it."""
        return f"{self.location.url}/{key}"

    def call(
        self,
        doing: str,
        request: Callable[[S3Client], T],
        *,
        needs: str,
        tells: tuple[str, ...] = (),
        conditional: bool = False,
        content: bool = False,
    ) -> T:
        """Make a request.

        :param doing: what is done to what, for the message of an error.
        :param request: makes it with the client that it is given.
        :param needs: the actions that a policy must allow for it, for the message where it is denied.
        :param tells: fields of the answer; one without them is the answer to some other request.
        :param conditional: whether a condition was stated, so that the answer may say that it does not hold.
        :param content: whether it carries content, which may take long.
        :raises BatchkitError: what the answer means.
        """
        limit = self._timeouts.batch if content else self._timeouts.request
        seconds = limit.total_seconds()
        hint = self.hint(needs)
        client = self._connected()
        try:
            with s3_errors(doing, denied=hint):
                answer = _within(seconds, doing, lambda: request(client))
        except BatchkitError as error:
            self._learn_time(answer_of(error))
            if isinstance(error, ConflictError) and not conditional:
                raise of_another_request(doing) from error
            if not is_expired(error):
                raise
            self._forget(client)
            with s3_errors(doing, denied=hint):
                answer = _within(seconds, doing, lambda: request(self._connected()))
        self._learn_time(answer)
        if any(field not in answer for field in tells):
            _close_content(answer)
            raise of_another_request(doing)
        return answer

    def hint(self, needs: str) -> str:
        """Say what a policy has to allow where the store only says "denied"."""
        bucket = f"arn:aws:s3:::{self.location.bucket}"
        resource = bucket if "ListBucket" in needs else f"{bucket}/{self.location.prefix}/*"
        owner = self.settings.expected_bucket_owner
        doubt = "" if owner is None else f", or see whether the bucket belongs to account {owner}"
        return f"allow {needs} on {resource}{doubt}"

    def close(self) -> None:
        """Close the client. Never raises."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close()

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
                self._clock_offset = parsedate_to_datetime(date).timestamp() - time.monotonic()


def _within(seconds: float, doing: str, request: Callable[[], T]) -> T:
    """Make a request in a thread of its own, and wait for it so long.

    Botocore's limits are for the pauses between two bytes only. What comes later comes for nobody.
    """
    future: Future[T] = Future()

    def ask() -> None:
        try:
            future.set_result(request())
        except BaseException as error:  # noqa: BLE001  # handed to the thread that waits for the result
            future.set_exception(error)

    threading.Thread(target=ask, name="batchkit-s3", daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError as error:
        if future.done():
            raise
        future.add_done_callback(_forget)
        raise TransientError(
            f"{doing}: no whole answer came in {seconds:g} s; is the endpoint up?"
        ) from error


def _forget(late: Future[Any]) -> None:
    if late.exception() is None:
        _close_content(late.result())


def _close_content(answer: Mapping[str, Any]) -> None:
    """Let go of the connection that an answer nobody reads would keep."""
    if "Body" in answer:
        answer["Body"].close()
