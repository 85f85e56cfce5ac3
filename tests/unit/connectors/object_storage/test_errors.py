"""The tables of errors: what each answer means for the run."""

from __future__ import annotations

import errno
import os
import pickle
import re
from typing import Any

import pytest
from botocore import exceptions as boto  # noqa: TID253  # its errors are what is tested

from airflow_batchkit.connectors.object_storage.errors import (
    answer_of,
    code_of,
    file_errors,
    is_denied,
    is_expired,
    is_not_implemented,
    s3_errors,
)
from airflow_batchkit.connectors.object_storage.store import ConflictError, MissingObjectError
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    PermanentError,
    PushbackError,
    TransientError,
    UsageError,
)


def raised_by(error: Exception) -> BatchkitError:
    """Return what becomes of an error of boto."""
    with pytest.raises(BatchkitError) as raised, s3_errors("write of s3://lake/orders/part-1"):
        raise error
    assert str(raised.value).startswith("write of s3://lake/orders/part-1: ")
    assert "\n" not in str(raised.value)
    return raised.value


def answer(status: int, code: str = "", message: str = "said", **headers: str) -> boto.ClientError:
    """Make an answer with an error in it."""
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    return boto.ClientError(response, "PutObject")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answer(503, "SlowDown"), PushbackError),
        (answer(429), PushbackError),
        (answer(503), PushbackError),
        (answer(500, "InternalError"), TransientError),
        (answer(200, "InternalError"), TransientError),
        (answer(504), TransientError),
        (answer(409, "ConditionalRequestConflict"), TransientError),
        (answer(400, "ExpiredToken"), TransientError),
        (answer(412, "PreconditionFailed"), ConflictError),
        (answer(412), ConflictError),
        (answer(404, "404"), MissingObjectError),
        (answer(404, "NoSuchBucket"), UsageError),
        (answer(301, "PermanentRedirect"), UsageError),
        (answer(403, "403"), UsageError),
        (answer(401), UsageError),
        (answer(507), PermanentError),
        (answer(400, "EntityTooLarge", "too\nlarge"), PermanentError),
        (boto.EndpointConnectionError(endpoint_url="http://x"), TransientError),
        (boto.ConnectTimeoutError(endpoint_url="http://x"), TransientError),
        (boto.ReadTimeoutError(endpoint_url="http://x"), TransientError),
        (boto.ConnectionClosedError(endpoint_url="http://x"), TransientError),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), TransientError),
        (boto.CredentialRetrievalError(provider="x", error_msg="y"), TransientError),
        (boto.SSLError(endpoint_url="https://x", error=OSError("self-signed")), UsageError),
        (boto.NoCredentialsError(), UsageError),
        (ConnectionResetError(), TransientError),
    ],
)
def test_answers_of_s3(error: Exception, kind: type[BatchkitError]) -> None:
    """What may pass is tried again, what a person must mend says so, and each survives pickling."""
    raised = raised_by(error)
    assert type(raised) is kind
    assert str(pickle.loads(pickle.dumps(raised))) == str(raised)  # noqa: S301  # made two lines above


def test_what_an_answer_says_besides() -> None:
    """Expiry, missing features and the time to wait are read from the answer behind an error."""
    assert is_expired(raised_by(answer(400, "ExpiredToken")))
    assert not is_expired(raised_by(answer(403, "AccessDenied")))
    assert is_not_implemented(raised_by(answer(501, "NotImplemented")))
    assert answer_of(raised_by(boto.NoCredentialsError())) == {}
    slow = raised_by(answer(503, "SlowDown", **{"retry-after": "12"}))
    assert isinstance(slow, PushbackError)
    assert slow.retry_after == 12.0
    later = raised_by(answer(503, "SlowDown", **{"retry-after": "-5"}))
    assert isinstance(later, PushbackError)
    assert later.retry_after == 0.0


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, PermanentError),
        (errno.EROFS, UsageError),
        (errno.ENAMETOOLONG, UsageError),
        (errno.ENOENT, MissingObjectError),
        (errno.EIO, TransientError),
    ],
)
def test_errors_of_the_file_system(number: int, kind: type[BatchkitError]) -> None:
    """A full disk needs a person, a wrong path another setting, a glitch another try."""
    with pytest.raises(kind) as raised, file_errors("write of /data/part-1"):
        raise OSError(number, os.strerror(number))
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (answer(400, "KMS.DisabledException"), UsageError, "the KMS key is disabled"),
        (
            answer(400, "KMS.InvalidKeyUsageException", "no such use"),
            UsageError,
            r"cannot be used \(no such use",
        ),
        (answer(400, "KMS.ThrottlingException"), PushbackError, "slow down"),
        (answer(400, "KMS.KMSInternalException"), TransientError, "may work"),
        (answer(400, "InvalidStorageClass"), UsageError, "storage_class"),
        (answer(400, "InvalidTag"), UsageError, "tags"),
        (answer(400, "InvalidEncryptionAlgorithmError"), UsageError, "server_side_encryption"),
        (answer(400, "AccessControlListNotSupported"), UsageError, "leave acl out"),
        (answer(403, "InvalidObjectState"), PermanentError, "archived"),
        (answer(404, "NoSuchUpload"), TransientError, "begin it anew"),
        (answer(400, "BadDigest"), TransientError, "not what was sent"),
        (answer(413), PermanentError, "too large"),
        (answer(501), PermanentError, "when_required"),
        (answer(307, "TemporaryRedirect"), TransientError, "may work"),
        (answer(400, "InvalidToken"), UsageError, "mend the connection"),
        (answer(403, "AccountProblem"), UsageError, "the account cannot use the store"),
    ],
)
def test_every_answer_says_what_to_do(error: Exception, kind: type[BatchkitError], said: str) -> None:
    """Each code that S3 documents for what we ask has its own line, which names what to change."""
    raised = raised_by(error)
    assert type(raised) is kind
    assert re.search(said, str(raised))


SAID = 'User: arn:aws:iam::1:user/x is not authorized to perform: {} on resource: "{}" {}'


@pytest.mark.parametrize(
    ("action", "resource", "reason"),
    [
        (
            "kms:GenerateDataKey",
            "arn:aws:kms:eu-west-1:1:key/k",
            "because no identity-based policy allows it",
        ),
        ("s3:PutObject", "arn:aws:s3:::lake/x", "with an explicit deny in a resource-based policy"),
    ],
)
def test_a_denial_repeats_what_the_store_says_is_missing(action: str, resource: str, reason: str) -> None:
    """Right, resource and reason are the store's own words; who asked is left out."""
    with pytest.raises(UsageError) as raised, s3_errors("write of x", denied="do this"):
        raise answer(403, "AccessDenied", SAID.format(action, resource, reason))
    assert str(raised.value) == (
        f"write of x: AccessDenied: access is denied {reason}; allow {action} on {resource}"
    )


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Access Denied", "access is denied; do this"),
        ("object protected by object lock", "access is denied (object protected by object lock); do this"),
    ],
)
def test_a_bare_denial_says_what_the_request_takes(message: str, said: str) -> None:
    """Where the store does not say which right is missing, we do; what else it says is kept."""
    with pytest.raises(UsageError) as raised, s3_errors("write of x", denied="do this"):
        raise answer(403, "AccessDenied", message)
    assert str(raised.value) == f"write of x: AccessDenied: {said}"


def test_a_missing_right_can_be_told_from_a_missing_object() -> None:
    """403 is the answer for both where one may not list."""
    assert is_denied(raised_by(answer(403, "AccessDenied")))
    assert not is_denied(raised_by(answer(404, "NoSuchKey")))
    assert code_of(raised_by(answer(404, "NoSuchKey"))) == "NoSuchKey"
