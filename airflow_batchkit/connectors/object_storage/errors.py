"""What an error of S3 or of the file system means for the run."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from airflow_batchkit.connectors.object_storage.store import ConflictError, MissingObjectError
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    PermanentError,
    PushbackError,
    TransientError,
    UsageError,
)

_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})

_SLOWER = (PushbackError, "the store asks to slow down")
_LATER = (TransientError, "may work when tried again")
_FAILED = (TransientError, "the store failed; may work when tried again")
_CONFLICT = (ConflictError, "somebody else wrote it")
_MISSING = (MissingObjectError, "there is no such object")
_FULL = (PermanentError, "the store is full; make room and clear the task")
_DENIED = (UsageError, "access is denied; the connection must list, read, write and delete below this prefix")
_NO_KEY = (UsageError, "the credentials are not accepted; mend the connection")
_REGION = (UsageError, "the bucket is in another region; set region_name in the connection")

_BY_CODE: dict[str, tuple[type[BatchkitError], str]] = {
    **dict.fromkeys(
        ("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests"), _SLOWER
    ),
    **dict.fromkeys(("RequestTimeout", "RequestTimeoutException", "ConditionalRequestConflict"), _LATER),
    **dict.fromkeys(("OperationAborted", *_EXPIRED), _LATER),
    "InternalError": _FAILED,
    "ServiceUnavailable": _SLOWER,
    "PreconditionFailed": _CONFLICT,
    "NoSuchKey": _MISSING,
    **dict.fromkeys(("InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"), _FULL),
    "NoSuchBucket": (UsageError, "there is no such bucket; create it, or mend the URL"),
    "InvalidBucketName": (UsageError, "this is no valid bucket name; mend the URL"),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled"), _DENIED),
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"), _NO_KEY),
    **dict.fromkeys(("PermanentRedirect", "AuthorizationHeaderMalformed"), _REGION),
    "IllegalLocationConstraintException": _REGION,
    "RequestTimeTooSkewed": (UsageError, "this machine's clock is wrong; set it"),
}
_BY_STATUS: dict[int, tuple[type[BatchkitError], str]] = {
    HTTPStatus.MOVED_PERMANENTLY: _REGION,
    HTTPStatus.UNAUTHORIZED: _NO_KEY,
    HTTPStatus.FORBIDDEN: _DENIED,
    HTTPStatus.NOT_FOUND: _MISSING,
    HTTPStatus.CONFLICT: _LATER,
    HTTPStatus.PRECONDITION_FAILED: _CONFLICT,
    HTTPStatus.TOO_MANY_REQUESTS: _SLOWER,
    HTTPStatus.SERVICE_UNAVAILABLE: _SLOWER,
    HTTPStatus.INSUFFICIENT_STORAGE: _FULL,
}
_BY_ERRNO: dict[int, tuple[type[BatchkitError], str]] = {
    errno.ENOSPC: (PermanentError, "the disk is full; make room and clear the task"),
    errno.EDQUOT: (PermanentError, "the disk quota is used up; make room and clear the task"),
    errno.EACCES: (UsageError, "permission denied; let this user write there, or choose another folder"),
    errno.EPERM: (UsageError, "not permitted; let this user write there, or choose another folder"),
    errno.EROFS: (UsageError, "the file system is read-only; choose another folder"),
    errno.ENOTDIR: (UsageError, "a part of the path is a file, not a folder; choose another folder"),
    errno.EISDIR: (UsageError, "a folder is in the way; remove it, or choose another folder"),
    errno.ENAMETOOLONG: (UsageError, "a name is too long for the file system; choose a shorter path"),
}


@contextmanager
def s3_errors(doing: str) -> Iterator[None]:
    """Turn botocore's errors into ours for a ``with`` block.

    :param doing: what is done to what, for the message (``"write of s3://lake/orders/part-…"``).
    """
    from botocore import exceptions as boto
    from urllib3.exceptions import HTTPError

    try:
        yield
    except boto.ClientError as error:
        raise _of_response(error.response, doing) from error
    except boto.SSLError as error:
        raise UsageError(f"{doing}: {_one_line(error)}; mend the connection's CA bundle") from error
    except (
        boto.ConnectionError,
        boto.HTTPClientError,
        boto.IncompleteReadError,
        boto.CredentialRetrievalError,
        HTTPError,
        OSError,
    ) as error:
        raise TransientError(f"{doing}: no answer ({type(error).__name__}); is the endpoint up?") from error
    except boto.BotoCoreError as error:
        raise UsageError(f"{doing}: {_one_line(error)}; mend the connection") from error


@contextmanager
def file_errors(doing: str) -> Iterator[None]:
    """Turn the operating system's errors into ours for a ``with`` block.

    :param doing: what is done to what.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise MissingObjectError(f"{doing}: there is no such file") from error
    except OSError as error:
        reason = f"{error.strerror or type(error).__name__}; may work when tried again"
        kind, advice = _BY_ERRNO.get(error.errno or 0, (TransientError, reason))
        raise kind(f"{doing}: {advice}") from error


def answer_of(error: BatchkitError) -> Mapping[str, Any]:
    """Return the answer behind an error, empty where there was none."""
    return getattr(error.__cause__, "response", None) or {}


def is_expired(error: BatchkitError) -> bool:
    """Tell whether credentials had expired: a new client may have newer ones."""
    return answer_of(error).get("Error", {}).get("Code") in _EXPIRED


def is_not_implemented(error: BatchkitError) -> bool:
    """Tell whether the store does not know what was asked of it."""
    status = answer_of(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return bool(status == HTTPStatus.NOT_IMPLEMENTED)


def of_refused_delete(refused: Mapping[str, Any], doing: str) -> BatchkitError:
    """Class one entry of the errors in the answer to a deletion of many."""
    return _of_response({"Error": refused}, doing)


def _of_response(response: Mapping[str, Any], doing: str) -> BatchkitError:
    answer = response.get("ResponseMetadata", {})
    status = int(answer.get("HTTPStatusCode", 0))
    code = str(response.get("Error", {}).get("Code", ""))
    said = _one_line(response.get("Error", {}).get("Message", "refused"))
    otherwise = _FAILED if status >= HTTPStatus.INTERNAL_SERVER_ERROR else (PermanentError, said)
    kind, advice = _BY_CODE.get(code) or _BY_STATUS.get(status) or otherwise
    problem = f"{doing}: {code or status}: {advice}"
    if kind is PushbackError:
        return PushbackError(problem, _retry_after(answer.get("HTTPHeaders", {})))
    return kind(problem)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    stated = headers.get("retry-after", "")
    return float(stated) if stated.isdigit() else None


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]
