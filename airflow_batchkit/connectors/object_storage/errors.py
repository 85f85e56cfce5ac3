"""What an error of S3 or of the file system means for the run."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from airflow_batchkit.connectors.object_storage.store import ConflictError, MissingObjectError
from airflow_batchkit.connectors.retry_after import retry_after
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    PermanentError,
    PushbackError,
    TransientError,
    UsageError,
)

_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})
# "User: arn:… is not authorized to perform: s3:PutObject on resource: "arn:…" because no … policy allows …"
_UNAUTHORIZED = re.compile(
    r"not authorized to perform: (\S+)(?: on resource: \"?([^\s\"]+)\"?)?(?: ((?:because|with) .+))?"
)

_SLOWER = (PushbackError, "the store asks to slow down")
_MAY_WORK = "may work when tried again"
_LATER = (TransientError, _MAY_WORK)
_FAILED = (TransientError, "the store failed; may work when tried again")
_GARBLED = (TransientError, "what arrived is not what was sent; may work when tried again")
_CONFLICT = (ConflictError, "somebody else wrote it")
_MISSING = (MissingObjectError, "there is no such object")
_ABORTED = (TransientError, "the upload was aborted, by a newer leg or a lifecycle rule; begin it anew")
_FULL = (PermanentError, "the store is full; make room and clear the task")
_TOO_LARGE = (PermanentError, "it is too large for one object; lower BatchPolicy.max_bytes")
_ARCHIVED = (PermanentError, "the object is archived and cannot be read; restore it first")
_DENIED = (UsageError, "access is denied")
_NO_KEY = (UsageError, "the credentials are not accepted; mend the connection")
_ACCOUNT = (UsageError, "the account cannot use the store now; ask whoever runs it")
_REGION = (UsageError, "the bucket is in another region; set region_name in the connection")
_LACKING = (
    "the store does not know what was asked of it; leave out of s3_settings what it lacks, or set "
    "request_checksum_calculation=when_required in the connection's config_kwargs"
)
_UNKNOWN_FEATURE = (PermanentError, _LACKING)

_BY_CODE: dict[str, tuple[type[BatchkitError], str]] = {
    **dict.fromkeys(
        (
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "RequestThrottled",
            "RequestThrottledException",
            "RequestLimitExceeded",
            "BandwidthLimitExceeded",
            "TooManyRequests",
            "TooManyRequestsException",
            "KMS.ThrottlingException",
            "KMS.LimitExceededException",
            "ServiceUnavailable",
            "Busy",
        ),
        _SLOWER,
    ),
    **dict.fromkeys(
        (
            "RequestTimeout",
            "RequestTimeoutException",
            "ConditionalRequestConflict",
            "OperationAborted",
            "TemporaryRedirect",
            "InvalidPart",
            "KMS.KMSInternalException",
            "KMS.DependencyTimeoutException",
            *_EXPIRED,
        ),
        _LATER,
    ),
    "InternalError": _FAILED,
    **dict.fromkeys(("BadDigest", "IncompleteBody", "XAmzContentChecksumMismatch"), _GARBLED),
    "PreconditionFailed": _CONFLICT,
    "NoSuchKey": _MISSING,
    "NoSuchUpload": _ABORTED,
    **dict.fromkeys(("InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"), _FULL),
    **dict.fromkeys(("EntityTooLarge", "MaxMessageLengthExceeded"), _TOO_LARGE),
    "InvalidObjectState": _ARCHIVED,
    "NotImplemented": _UNKNOWN_FEATURE,
    "NoSuchBucket": (UsageError, "there is no such bucket; create it, or mend the URL"),
    "InvalidBucketName": (UsageError, "this is no valid bucket name; mend the URL"),
    "KeyTooLongError": (UsageError, "the name is too long; choose a shorter prefix"),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "UnauthorizedAccess"), _DENIED),
    **dict.fromkeys(
        (
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "InvalidToken",
            "InvalidSecurity",
            "MissingSecurityHeader",
        ),
        _NO_KEY,
    ),
    **dict.fromkeys(("AccountProblem", "NotSignedUp"), _ACCOUNT),
    **dict.fromkeys(
        ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"), _REGION
    ),
    "RequestTimeTooSkewed": (UsageError, "this machine's clock is wrong; set it"),
    "InvalidStorageClass": (UsageError, "the store does not know this storage_class; mend s3_settings"),
    "InvalidTag": (UsageError, "the store does not accept these tags; mend s3_settings"),
    **dict.fromkeys(
        ("InvalidEncryptionAlgorithmError", "InvalidEncryptionMethod"),
        (UsageError, "the store does not know this server_side_encryption; mend s3_settings"),
    ),
    "AccessControlListNotSupported": (
        UsageError,
        "the bucket takes no ACLs (its owner owns every object); leave acl out of s3_settings",
    ),
    "KMS.NotFoundException": (UsageError, "there is no such KMS key; mend sse_kms_key_id in s3_settings"),
    "KMS.DisabledException": (UsageError, "the KMS key is disabled; enable it, or choose another"),
}
_BY_STATUS: dict[int, tuple[type[BatchkitError], str]] = {
    HTTPStatus.MOVED_PERMANENTLY: _REGION,
    HTTPStatus.TEMPORARY_REDIRECT: _LATER,
    HTTPStatus.UNAUTHORIZED: _NO_KEY,
    HTTPStatus.FORBIDDEN: _DENIED,
    HTTPStatus.NOT_FOUND: _MISSING,
    HTTPStatus.REQUEST_TIMEOUT: _LATER,
    HTTPStatus.CONFLICT: _LATER,
    HTTPStatus.PRECONDITION_FAILED: _CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: _TOO_LARGE,
    HTTPStatus.TOO_MANY_REQUESTS: _SLOWER,
    HTTPStatus.NOT_IMPLEMENTED: _UNKNOWN_FEATURE,
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
def s3_errors(doing: str, *, denied: str = "mend the connection, or what it may do") -> Iterator[None]:
    """Turn botocore's errors into ours for a ``with`` block.

    :param doing: what is done to what, for the message (``"write of s3://lake/orders/part-…"``).
    :param denied: what to do where access is denied, and the store does not say what is missing.
    """
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except boto.ClientError as error:
        raise _of_response(error.response, doing, denied) from error
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
    except (ResponseParserError, boto.FlexibleChecksumError) as error:
        raise TransientError(f"{doing}: the answer is cut off, or not a store's; {_MAY_WORK}") from error
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


def of_another_request(doing: str) -> TransientError:
    """Return the error for an answer that cannot be about what was asked."""
    return TransientError(f"{doing}: the answer to another request came; {_MAY_WORK}")


def answer_of(error: BatchkitError) -> Mapping[str, Any]:
    """Return the answer behind an error, empty where there was none."""
    return getattr(error.__cause__, "response", None) or {}


def code_of(error: BatchkitError) -> str:
    """Return S3's code for the error, empty where there was no answer."""
    return str(answer_of(error).get("Error", {}).get("Code", ""))


def is_expired(error: BatchkitError) -> bool:
    """Tell whether credentials had expired: a new client may have newer ones."""
    return code_of(error) in _EXPIRED


def is_denied(error: BatchkitError) -> bool:
    """Tell whether the store denied access: where one may not list, it says so of missing objects too."""
    return _status_of(error) == HTTPStatus.FORBIDDEN


def is_not_implemented(error: BatchkitError) -> bool:
    """Tell whether the store does not know what was asked of it."""
    return _status_of(error) == HTTPStatus.NOT_IMPLEMENTED


def of_refused_delete(refused: Mapping[str, Any], doing: str, denied: str) -> BatchkitError:
    """Class one entry of the errors in the answer to a deletion of many."""
    return _of_response({"Error": refused}, doing, denied)


def _of_response(response: Mapping[str, Any], doing: str, denied: str) -> BatchkitError:
    answer = response.get("ResponseMetadata", {})
    status = int(answer.get("HTTPStatusCode", 0))
    code = str(response.get("Error", {}).get("Code", ""))
    said = _one_line(response.get("Error", {}).get("Message", "refused"))
    kind, advice = _BY_CODE.get(code) or _by_family(code, said) or _by_status(status, said)
    if (kind, advice) == _DENIED:
        advice = _missing_right(said, denied)
    problem = f"{doing}: {code or status}: {advice}"
    if kind is PushbackError:
        return PushbackError(problem, retry_after(answer.get("HTTPHeaders", {}).get("retry-after")))
    return kind(problem)


def _by_family(code: str, said: str) -> tuple[type[BatchkitError], str] | None:
    if code.startswith("KMS."):
        return (
            UsageError,
            f"the KMS key cannot be used ({said}); mend the key, or sse_kms_key_id in s3_settings",
        )
    return None


def _by_status(status: int, said: str) -> tuple[type[BatchkitError], str]:
    otherwise = _FAILED if status >= HTTPStatus.INTERNAL_SERVER_ERROR else (PermanentError, said)
    return _BY_STATUS.get(status, otherwise)


def _missing_right(said: str, denied: str) -> str:
    """Say which right is missing: the store's own word where it has one, else what the request takes."""
    found = _UNAUTHORIZED.search(said)
    if found is None:
        # "Access Denied" says nothing; "… object protected by object lock" does.
        more = (
            "" if said.strip(". ").lower() in {"", "access denied", "forbidden", "refused"} else f" ({said})"
        )
        return f"access is denied{more}; {denied}"
    action, resource, reason = found.groups()
    where = "" if resource is None else f" on {resource}"
    return f"access is denied{f' {reason}' if reason else ''}; allow {action}{where}"


def _status_of(error: BatchkitError) -> int:
    return int(answer_of(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]
