"""Limits of one connection, against a server that misbehaves on purpose."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from airflow_batchkit.connectors.elasticsearch.client import ElasticsearchEndpoint, connect
from airflow_batchkit.connectors.elasticsearch.errors import AnswerTooLargeError
from airflow_batchkit.connectors.elasticsearch.node import Limits
from airflow_batchkit.engine.policies import Timeouts

ANSWERED: list[bytes] = []
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def server(behave: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """Listen on loopback; let ``behave`` do with each connection what it likes until the test ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=attend, args=(connection,), daemon=True).start()

    def attend(connection: socket.socket) -> None:
        with connection:
            try:
                behave(connection, over)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def large(connection: socket.socket, _over: threading.Event) -> None:
    """Answer each request on a connection with 10 MB."""
    while connection.recv(65536):
        connection.sendall(HEAD + b"Content-Length: 10000000\r\n\r\n" + b"x" * 10_000_000)


def trickle(connection: socket.socket, over: threading.Event) -> None:
    """Send an answer piece by piece, for ever."""
    connection.recv(65536)
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while not over.wait(0.02):
        connection.sendall(b"1\r\nx\r\n")


def byte_by_byte(connection: socket.socket, over: threading.Event) -> None:
    """Send a body of known length, a byte at a time."""
    connection.recv(65536)
    connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
    while not over.wait(0.02):
        connection.sendall(b"x")


def header_by_header(connection: socket.socket, over: threading.Event) -> None:
    """Begin an answer whose head does not end."""
    connection.recv(65536)
    connection.sendall(HEAD)
    while not over.wait(0.02):
        connection.sendall(b"X-More: x\r\n")


def of_another(connection: socket.socket, _over: threading.Event) -> None:
    """Answer the first request as if it were another one, and hang up; then each as it should be."""
    name = re.findall(rb"(?i)x-opaque-id: (\S+)", connection.recv(65536))[0]
    told = name if ANSWERED else b"another"
    ANSWERED.append(name)
    connection.sendall(HEAD + b"X-Opaque-Id: %b\r\nContent-Length: 2\r\n\r\n{}" % told)


def silence(connection: socket.socket, over: threading.Event) -> None:
    """Take a request and say nothing."""
    connection.recv(65536)
    over.wait(30)


def short(connection: socket.socket, _over: threading.Event) -> None:
    """Promise more than is sent."""
    connection.recv(65536)
    connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{}")


def client_for(url: str, **timeouts: float) -> Any:
    """Make a client with these timeouts in seconds."""
    limits = Timeouts(**{name: timedelta(seconds=seconds) for name, seconds in timeouts.items()})
    return connect(ElasticsearchEndpoint(hosts=(url,)), limits)


def get(client: Any, limits: Limits | None = None) -> bytes:
    """Send one request, without retries."""
    settings = {} if limits is None else {"request_timeout": limits}
    answer: bytes = client.transport.perform_request("GET", "/", max_retries=0, **settings).body
    return answer


def test_an_answer_may_be_limited_in_size() -> None:
    """Past the limit the answer is given up, and the next request gets an answer of its own."""
    with server(large) as url, client_for(url) as client:
        with pytest.raises(AnswerTooLargeError, match="larger than 1,000,000 bytes"):
            get(client, Limits(seconds=30, max_bytes=1_000_000))
        assert len(get(client, Limits(seconds=30))) == 10_000_000
        assert len(get(client)) == 10_000_000


def test_a_whole_answer_has_a_time_limit() -> None:
    """An answer whose pieces keep coming, each in time, still ends at the request's limit."""
    from elastic_transport import ConnectionTimeout

    started = time.monotonic()
    with (
        server(trickle) as url,
        client_for(url, read=5, request=0.5) as client,
        pytest.raises(ConnectionTimeout) as caught,
    ):
        get(client)
    assert caught.value.message == "no whole answer came in 0.5 s"
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("behave", [byte_by_byte, header_by_header])
def test_an_answer_that_trickles_has_a_time_limit(
    behave: Callable[[socket.socket, threading.Event], None],
) -> None:
    """A body of known length, or a head, whose bytes keep coming in time, ends at the request's limit."""
    from elastic_transport import ConnectionTimeout

    started = time.monotonic()
    with (
        server(behave) as url,
        client_for(url, read=5, request=0.5) as client,
        pytest.raises(ConnectionTimeout) as caught,
    ):
        get(client)
    assert caught.value.message == "no whole answer came in 0.5 s"
    assert time.monotonic() - started < 4


def test_the_answer_to_another_request_is_refused() -> None:
    """An answer that names another request is no answer, and its connection is not used again."""
    from elastic_transport import ConnectionError as UnreachableError

    ANSWERED.clear()
    with server(of_another) as url, client_for(url) as client:
        with pytest.raises(UnreachableError) as caught:
            get(client)
        assert caught.value.message == "the answer to another request came"
        assert get(client) == b"{}"
    assert len(set(ANSWERED)) == 2


def test_silence_ends_at_the_read_timeout() -> None:
    """A server that takes the request and says nothing is given up."""
    from elastic_transport import ConnectionTimeout

    with (
        server(silence) as url,
        client_for(url, read=0.2) as client,
        pytest.raises(ConnectionTimeout) as caught,
    ):
        get(client)
    assert "Read timed out" in caught.value.message


def test_half_an_answer_is_no_answer() -> None:
    """A connection that ends before the promised length is an error, not a shorter answer."""
    from elastic_transport import ConnectionError as UnreachableError

    with server(short) as url, client_for(url) as client, pytest.raises(UnreachableError):
        get(client)


def test_closing_ends_a_request_that_hangs() -> None:
    """Whoever waits for an answer gets an error at once when another thread closes the client."""
    from elastic_transport import TransportError

    arrived = threading.Event()
    ended: list[Exception] = []

    def hang(connection: socket.socket, over: threading.Event) -> None:
        connection.recv(65536)
        arrived.set()
        over.wait(30)

    def ask(client: Any) -> None:
        try:
            get(client)
        except TransportError as error:
            ended.append(error)

    with server(hang) as url:
        client = client_for(url, read=30)
        thread = threading.Thread(target=ask, args=(client,), daemon=True)
        thread.start()
        assert arrived.wait(5)
        client.transport.close()
        thread.join(5)
        assert not thread.is_alive()
    assert len(ended) == 1
