"""What Elasticsearch's errors mean to a job: one table by error type, one by HTTP status.

The type decides where it says more than the status: a lost point in time and a missing index are both 404.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_batchkit.connectors.retry_after import retry_after as parsed
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    BatchTooLargeError,
    PermanentError,
    PushbackError,
    RecordError,
    TransientError,
    UsageError,
)

if TYPE_CHECKING:
    from elastic_transport import TransportError

MAX_REASON = 400


class PointInTimeLostError(TransientError):
    """The server lost the point in time: a node restarted, the index was closed, or it grew too old."""


class IndexMissingError(PermanentError):
    """There is no such index (any more)."""


class ForbiddenError(UsageError):
    """The credentials lack a privilege; the server's reason names it."""


class AnswerTooLargeError(TransientError):
    """The answer grew past the size that was asked for; ask for fewer records."""


BY_TYPE: Mapping[str, type[BatchkitError]] = {
    "search_context_missing_exception": PointInTimeLostError,
    "search_context_missing_nodes_exception": PointInTimeLostError,
    "index_not_found_exception": IndexMissingError,
    "index_closed_exception": TransientError,
    "no_shard_available_action_exception": TransientError,
    "unavailable_shards_exception": TransientError,
    "master_not_discovered_exception": TransientError,
    "node_not_connected_exception": TransientError,
    "task_cancelled_exception": TransientError,
    "es_rejected_execution_exception": PushbackError,
    "circuit_breaking_exception": PushbackError,
    "document_parsing_exception": RecordError,
    "mapper_parsing_exception": RecordError,
    "strict_dynamic_mapping_exception": RecordError,
    "version_conflict_engine_exception": RecordError,
}

BY_STATUS: Mapping[int, type[BatchkitError]] = {
    400: UsageError,
    401: UsageError,
    403: ForbiddenError,
    404: PermanentError,
    408: TransientError,
    413: BatchTooLargeError,
    429: PushbackError,
    501: PermanentError,
    503: PushbackError,
}

_ADVICE: Mapping[int | str, str] = {
    "cluster_block_exception": "take the block off the index, or make room on the server's disks",
    401: "check the connection's API key, or user and password",
    403: "grant the missing privilege to the connection's user or API key",
    413: "one request is larger than the server's http.max_content_length: make batches smaller",
}

# By what OpenSSL and urllib3 say; the last one holds for everything else.
_TLS_ADVICE = (
    (re.compile(r"Fingerprints"), "set the connection's fingerprint to that of the server's certificate"),
    (re.compile(r"match|not valid for|mismatch"), "use a host name that its certificate is for"),
    (re.compile(r"WRONG_VERSION|RECORD_LAYER|record layer|UNEXPECTED_MESSAGE"), "it speaks plain http there"),
    (re.compile(""), "set the connection's ca_certs or fingerprint to the server's own"),
)


def classify(status: int, answer: bytes, *, about: str, retry_after: str | None = None) -> BatchkitError:
    """Turn an error answer into the exception that says what to do about it.

    :param status: HTTP status.
    :param answer: the body, which may be empty or not JSON at all (a proxy's page).
    :param about: what the request was about, for the message (``index 'orders'``).
    :param retry_after: the ``Retry-After`` header as it came.
    """
    error_type, reason = _cause(answer)
    error_class = BY_TYPE.get(error_type) or BY_STATUS.get(status) or _by_hundred(status)
    told = ": ".join(part for part in (error_type, reason) if part) or "no reason given"
    known = _ADVICE.get(error_type) or _ADVICE.get(status)
    advice = f" ({known})" if known else ""
    message = f"{about}: Elasticsearch answered {status} {told}{advice}"
    if issubclass(error_class, PushbackError):
        return error_class(message, parsed(retry_after))
    return error_class(message)


def unreachable(error: TransportError, *, about: str, hosts: str) -> BatchkitError:
    """Turn a failed connection or a timeout into a ``TransientError``, bad TLS into a ``UsageError``.

    :param error: what ``elastic_transport`` raised.
    :param about: what the request was about.
    :param hosts: the servers that were asked, without credentials.
    """
    from elastic_transport import TlsError

    told = one_line(error.message)
    if isinstance(error, TlsError):
        return UsageError(f"{about}: no trusted TLS connection to {hosts}: {told} ({_tls_advice(told)})")
    # A port that speaks https hangs up on plain http, and so does a server that is being stopped.
    hint = " (does it speak https?)" if "RemoteDisconnected" in told and "https://" not in hosts else ""
    return TransientError(f"{about}: no answer from {hosts}: {type(error).__name__}: {told}{hint}")


def one_line(text: str) -> str:
    """Return text without line breaks, control characters and names of objects, of at most 400 characters."""
    text = re.sub(r"<[^<>]* object at 0x[0-9a-f]+>:? ?|\w+\(host='[^']*', port=\d+\): ", "", text)
    text = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).split())
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…"


def _tls_advice(told: str) -> str:
    return next(advice for pattern, advice in _TLS_ADVICE if pattern.search(told))


def _by_hundred(status: int) -> type[BatchkitError]:
    return TransientError if status >= 500 else PermanentError  # noqa: PLR2004  # the server's own failures


def _cause(answer: bytes) -> tuple[str, str]:
    """Return type and reason of the innermost error that says something."""
    try:
        error = msgspec.json.decode(answer)["error"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return "", one_line(answer[:200].decode(errors="replace"))
    if not isinstance(error, dict):
        return "", one_line(str(error))
    root = _root(error)
    reasons = [str(root.get("reason") or "")]
    inner = root.get("caused_by") or error.get("caused_by")
    if isinstance(inner, dict) and inner.get("reason") and str(inner["reason"]) not in reasons[0]:
        reasons.append(str(inner["reason"]))
    return str(root.get("type", "")), one_line("; ".join(reason for reason in reasons if reason))


def _root(error: dict[str, Any]) -> dict[str, Any]:
    failed = [shard.get("reason") for shard in error.get("failed_shards") or []]
    for candidate in [*failed, *(error.get("root_cause") or []), error]:
        if isinstance(candidate, dict) and candidate.get("type"):
            return candidate
    return error
