"""The tables of errors: what each answer means for the run."""

from __future__ import annotations

import errno
import os
import pickle
from typing import Any

import pytest
from botocore import exceptions as boto  # noqa: TID253  # its errors are what is tested

from airflow_batchkit.connectors.object_storage.errors import (
    answer_of,
    file_errors,
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
