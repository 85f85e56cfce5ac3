"""Large objects sent in parts: whole or not at all, and no part stays behind that nobody asks for."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from airflow_batchkit.connectors.object_storage.errors import code_of, of_another_request
from airflow_batchkit.connectors.patience import patiently
from airflow_batchkit.engine.exceptions import BatchkitError, PermanentError
from airflow_batchkit.engine.failpoints import effect

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

    from airflow_batchkit.connectors.object_storage.s3_calls import S3Calls

MAX_PARTS = 10_000

_ABORT = "s3:AbortMultipartUpload"
_LIST = "s3:ListBucketMultipartUploads"
_WRITE = "s3:PutObject"
_CHECKSUM: Final = "ChecksumCRC32"


class Upload:
    """One object on its way in parts; it appears when :meth:`complete` succeeds.

    :param calls: the bucket.
    :param key: name of the object.
    :param needs: the actions that a policy must allow to begin.
    :param made_with: what boto3 takes with the request that begins it.
    """

    def __init__(self, calls: S3Calls, key: str, *, needs: str, made_with: Mapping[str, Any]) -> None:
        self._calls = calls
        self._doing = f"write of {calls.url(key)} in parts"
        self._key = key
        with effect("s3.begin_upload"):
            answer = calls.call(
                self._doing,
                lambda client: client.create_multipart_upload(
                    **calls.object(key), **_checksum(client), **made_with
                ),
                needs=needs,
                tells=("UploadId",),
            )
        if answer.get("Key", calls.full(key)) != calls.full(key):
            raise of_another_request(self._doing)
        self._upload = {**calls.object(key), "UploadId": answer["UploadId"]}
        self._parts: list[CompletedPartTypeDef] = []

    def send(self, content: bytes) -> None:
        """Send the next part; a part alone is tried again."""
        number = len(self._parts) + 1
        with effect("s3.send_part"):
            answer = patiently(
                lambda: self._calls.call(
                    f"{self._doing}, part {number}",
                    lambda client: client.upload_part(
                        **self._upload, PartNumber=number, Body=io.BytesIO(content), **_checksum(client)
                    ),
                    needs=_WRITE,
                    tells=("ETag",),
                    content=True,
                )
            )
        part: CompletedPartTypeDef = {"PartNumber": number, "ETag": answer["ETag"]}
        if _CHECKSUM in answer:
            part[_CHECKSUM] = answer[_CHECKSUM]
        self._parts.append(part)

    def complete(self, condition: Mapping[str, Any]) -> str:
        """Make the object appear, and return its etag.

        :param condition: ``IfNoneMatch`` or ``IfMatch``, or nothing.
        """
        with effect("s3.complete_upload"):
            answer = self._calls.call(
                f"{self._doing}, completing {len(self._parts)}",
                lambda client: client.complete_multipart_upload(
                    **self._upload, MultipartUpload={"Parts": self._parts}, **condition
                ),
                needs=_WRITE,
                tells=("ETag",),
                conditional=bool(condition),
                content=True,
            )
        if answer.get("Key", self._upload["Key"]) != self._upload["Key"]:
            raise of_another_request(self._doing)
        return str(answer["ETag"])

    def abort(self) -> None:
        """Remove what was sent; what is gone already is as good as removed.

        :raises UsageError: it is not allowed.
        """
        _abort(self._calls, self._upload)


def put_in_parts(
    calls: S3Calls,
    key: str,
    file: BinaryIO,
    *,
    size: int,
    needs: str,
    made_with: Mapping[str, Any],
    condition: Mapping[str, Any],
) -> str:
    """Write an object in parts, whole or not at all.

    After a conflict (409) S3 wants the upload begun anew: whoever tries again does so by calling again.

    :param size: bytes of the file.
    :param needs: the actions that a policy must allow to begin.
    :param made_with: what boto3 takes with the request that begins the upload.
    :param condition: what it takes with the one that completes it.
    :returns: the etag.
    :raises PermanentError: more than 10,000 parts.
    """
    step = calls.settings.multipart_bytes or size
    if size > step * MAX_PARTS:
        raise PermanentError(
            f"write of {calls.url(key)}: {size:,} bytes are more than {MAX_PARTS:,} parts of {step:,}; "
            "raise multipart_bytes in s3_settings"
        )
    upload = Upload(calls, key, needs=needs, made_with=made_with)
    try:
        file.seek(0)
        for content in iter(partial(file.read, step), b""):
            upload.send(content)
        return upload.complete(condition)
    except BaseException:
        try:
            upload.abort()
        except BatchkitError as error:
            # The first error is the one to raise; publishing, or a lifecycle rule, removes what is left here.
            calls.log.warning("%s", error)
        raise


def abort_uploads(calls: S3Calls, folder: str) -> None:
    """Abort what killed legs had begun to upload below a folder.

    :raises UsageError: it is not allowed.
    """
    for found in list(_uploads(calls, folder)):
        _abort(calls, {**calls.bucket, "Key": found["Key"], "UploadId": found["UploadId"]})


def rehearse_upload(calls: S3Calls, key: str) -> None:
    """Begin an upload, list it and abort it, so that a right that is missing is found early.

    :raises UsageError: which right is missing.
    """
    upload = Upload(calls, key, needs=_WRITE, made_with={})
    list(_uploads(calls, key))
    upload.abort()


def _abort(calls: S3Calls, upload: Mapping[str, Any]) -> None:
    def request() -> Mapping[str, Any]:
        return calls.call(
            f"abort of an upload of s3://{calls.location.bucket}/{upload['Key']}",
            lambda client: client.abort_multipart_upload(**upload),
            needs=_ABORT,
        )

    try:
        with effect("s3.abort_upload"):
            patiently(request)
    except BatchkitError as error:
        if code_of(error) != "NoSuchUpload":
            raise


def _uploads(calls: S3Calls, folder: str) -> Iterator[Mapping[str, Any]]:
    request = {**calls.bucket, "Prefix": f"{calls.location.prefix}/{folder}"}

    def page() -> Mapping[str, Any]:
        return calls.call(
            f"listing of uploads below {calls.url(folder)}",
            lambda client: client.list_multipart_uploads(**request),
            needs=_LIST,
        )

    while True:
        answer = patiently(page)
        yield from answer.get("Uploads", ())
        if not answer.get("IsTruncated"):
            return
        request |= {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}


def _checksum(client: Any) -> dict[str, Any]:
    # As s3transfer does: the parts carry a checksum by default, and the upload has to announce it.
    if client.meta.config.request_checksum_calculation == "when_required":
        return {}
    return {"ChecksumAlgorithm": "CRC32"}
