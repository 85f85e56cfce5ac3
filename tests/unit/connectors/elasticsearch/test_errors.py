"""The error table of Elasticsearch."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from airflow_batchkit.connectors.elasticsearch.errors import (
    ForbiddenError,
    IndexMissingError,
    PointInTimeLostError,
    classify,
    one_line,
    unreachable,
)
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    BatchTooLargeError,
    PermanentError,
    PushbackError,
    RecordError,
    TransientError,
    UsageError,
)


def answer(error_type: str, reason: str | None = "why", **more: Any) -> bytes:
    """Return an error as the server writes it."""
    return json.dumps({"error": {"type": error_type, "reason": reason, **more}}).encode()


@pytest.mark.parametrize(
    ("status", "error_type", "expected"),
    [
        (404, "search_context_missing_exception", PointInTimeLostError),
        (404, "search_context_missing_nodes_exception", PointInTimeLostError),
        (404, "index_not_found_exception", IndexMissingError),
        (400, "index_closed_exception", TransientError),
        (503, "no_shard_available_action_exception", TransientError),
        (503, "unavailable_shards_exception", TransientError),
        (429, "es_rejected_execution_exception", PushbackError),
        (429, "circuit_breaking_exception", PushbackError),
        (400, "parsing_exception", UsageError),
        (400, "document_parsing_exception", RecordError),
        (409, "version_conflict_engine_exception", RecordError),
        (401, "security_exception", UsageError),
        (403, "security_exception", ForbiddenError),
        (404, "resource_not_found_exception", PermanentError),
        (405, "", PermanentError),
        (408, "", TransientError),
        (413, "", BatchTooLargeError),
        (429, "", PushbackError),
        (500, "null_pointer_exception", TransientError),
        (502, "", TransientError),
        (503, "", PushbackError),
        (504, "", TransientError),
        (302, "", PermanentError),
    ],
)
def test_status_and_type_decide(status: int, error_type: str, expected: type[BatchkitError]) -> None:
    """The type decides where it is known, else the status; the message names both and what it is about."""
    error = classify(status, answer(error_type), about="index 'orders'")
    assert type(error) is expected
    assert str(error).startswith(f"index 'orders': Elasticsearch answered {status} ")
    assert error_type in str(error)


@pytest.mark.parametrize(
    "body", [b"", b"<html>\n<b>Bad gateway</b></html>", b"[1]", b'{"error":"plain"}', b"\xff\xfe"]
)
def test_answers_that_are_no_elasticsearch_error(body: bytes) -> None:
    """A proxy's page, nothing at all or broken text still make one line of the right class."""
    error = classify(502, body, about="index 'orders'")
    assert isinstance(error, TransientError)
    assert "\n" not in str(error)


def test_the_innermost_reason_is_told() -> None:
    """All shards failed is no reason: the first shard's own is, with its cause."""
    body = json.dumps(
        {
            "error": {
                "type": "search_phase_execution_exception",
                "reason": "all shards failed",
                "failed_shards": [
                    {
                        "reason": {
                            "type": "query_shard_exception",
                            "reason": "failed to create query",
                            "caused_by": {"type": "x", "reason": "no such unit [q]"},
                        }
                    }
                ],
            }
        }
    ).encode()
    assert "query_shard_exception: failed to create query; no such unit [q]" in str(
        classify(400, body, about="x")
    )


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("86400", 3600.0),
        ("inf", None),
    ],
)
def test_the_wait_that_the_server_asks_for_is_kept(header: str | None, seconds: float | None) -> None:
    """Retry-After reaches whoever waits, also through pickling; of a day, an hour."""
    error = classify(429, b"", about="x", retry_after=header)
    assert isinstance(error, PushbackError)
    assert pickle.loads(pickle.dumps(error)).retry_after == seconds  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    ("error_type", "advice"), [("cluster_block_exception", "block"), ("other", "privilege")]
)
def test_the_advice_fits_what_forbids(error_type: str, advice: str) -> None:
    """A block on an index is no want of a privilege: both are 403, and each is told what to do."""
    assert advice in str(classify(403, answer(error_type), about="x")).rpartition("(")[2]


def test_messages_are_bounded_lines() -> None:
    """Line breaks, colour codes and endless reasons do not reach a log."""
    told = str(classify(400, answer("parsing_exception", "a\r\n\x1b[31mb" + "x" * 9000), about="x"))
    assert len(told) < 500
    assert told.isprintable()
    assert one_line("a\n\tb  c") == "a b c"


def test_connections_that_fail_are_transient() -> None:
    """No connection and no answer in time may work later; the message names the server, not our objects."""
    from elastic_transport import ConnectionError as UnreachableError, ConnectionTimeout

    refused = "TrackedConnection(host='127.0.0.1', port=1): [Errno 111] Connection refused"
    for error in (UnreachableError(refused), ConnectionTimeout(refused)):
        told = unreachable(error, about="index 'orders'", hosts="http://127.0.0.1:1")
        assert type(told) is TransientError
        name = type(error).__name__
        assert str(told) == (
            f"index 'orders': no answer from http://127.0.0.1:1: {name}: [Errno 111] Connection refused"
        )


def test_a_certificate_that_is_not_trusted_is_a_setting() -> None:
    """Trying again does not help against a wrong certificate: the message says what to set."""
    from elastic_transport import TlsError

    told = unreachable(TlsError("certificate verify failed"), about="x", hosts="https://search:9200")
    assert isinstance(told, UsageError)
    assert "ca_certs" in str(told)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("certificate verify failed: unable to get local issuer certificate", "ca_certs"),
        ("hostname '127.0.0.1' doesn't match 'localhost'", "host name that its certificate is for"),
        ("certificate verify failed: IP address mismatch, certificate is not valid for", "host name"),
        ('Fingerprints did not match. Expected "00", got "11"', "connection's fingerprint"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "plain http"),
        ("[SSL: RECORD_LAYER_FAILURE] record layer failure", "plain http"),
    ],
)
def test_the_advice_fits_what_is_wrong_with_tls(said: str, advice: str) -> None:
    """Each way in which TLS fails has its own remedy."""
    from elastic_transport import TlsError

    told = str(unreachable(TlsError(said), about="x", hosts="https://search:9200"))
    assert advice in told.rpartition("(")[2]


def test_a_server_that_hangs_up_on_plain_http_may_speak_https() -> None:
    """The hint is given where it can be true: not to a connection that speaks https already."""
    from elastic_transport import ConnectionError as UnreachableError

    error = UnreachableError("('Connection aborted.', RemoteDisconnected('Remote end closed connection'))")
    assert str(unreachable(error, about="x", hosts="http://a:1")).endswith("(does it speak https?)")
    assert "https?" not in str(unreachable(error, about="x", hosts="https://a:1"))
