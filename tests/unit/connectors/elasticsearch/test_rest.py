"""One request: what is sent, and what is told of it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch.client import ElasticsearchEndpoint, connect
from airflow_batchkit.connectors.elasticsearch.rest import Rest
from airflow_batchkit.engine.exceptions import TransientError, UsageError
from airflow_batchkit.engine.policies import Timeouts
from tests.support.processes import free_port


class Recorder(HTTPServer):
    """Answers every request alike and keeps what it was asked.

    :param status: of each answer.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Recorder

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.command, self.path, headers, body))
        self.send_response(self.server.status)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b'{"a": 1.0}')

    do_GET = do_POST  # noqa: N815 - the name that http.server looks for


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Give a server that keeps what it was asked."""
    server = Recorder()
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def rest(recorder: Recorder) -> Iterator[Rest]:
    """Give a connection to it, with an API key."""
    client = connect(ElasticsearchEndpoint(hosts=(recorder.url,), api_key="dG9tYXRv"), Timeouts())
    rest = Rest(client, timeouts=Timeouts(), log=logging.getLogger("test"))
    yield rest
    rest.close()


def test_a_request_carries_credentials_and_plain_json(recorder: Recorder, rest: Rest) -> None:
    """Content types are sent as they are, so that every major version takes them; answers stay bytes."""
    answer = rest.call("POST", "/orders/_search?x=1", {"size": 1, "q": "é"}, about="index 'orders'")
    method, path, headers, body = recorder.seen[0]
    assert (method, path, body) == ("POST", "/orders/_search?x=1", b'{"size":1,"q":"\\u00e9"}')
    assert headers["authorization"] == "ApiKey dG9tYXRv"
    assert headers["content-type"] == headers["accept"] == "application/json"
    assert (answer.status, answer.body) == (200, b'{"a": 1.0}')


def test_a_request_is_never_sent_twice(recorder: Recorder, rest: Rest) -> None:
    """Trying again is the caller's decision, not the client library's."""
    recorder.status = 502
    with pytest.raises(TransientError, match="502"):
        rest.call("GET", "/", about="x")
    assert len(recorder.seen) == 1


def test_an_expected_status_is_an_answer(recorder: Recorder, rest: Rest) -> None:
    """What the caller can deal with is no error."""
    recorder.status = 403
    assert rest.call("GET", "/", about="x", expect=(403,)).status == 403
    with pytest.raises(UsageError, match="403"):
        rest.call("GET", "/", about="x")


def test_the_log_tells_what_not_with_what(rest: Rest, caplog: pytest.LogCaptureFixture) -> None:
    """A debug line names purpose, path, size and duration; neither body, parameters nor credentials."""
    with caplog.at_level(logging.DEBUG, logger="test"):
        rest.call("POST", "/_pit?id=secret", {"id": "secret"}, about="index 'orders'")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "test"]
    assert line.startswith("index 'orders': POST /_pit answered 200 with 10 bytes in ")
    assert "secret" not in caplog.text
    assert "dG9tYXRv" not in caplog.text


def connection_to(*hosts: str, **seconds: float) -> Rest:
    """Make a connection to several hosts; its timeouts in seconds."""
    timeouts = Timeouts(**{name: timedelta(seconds=limit) for name, limit in seconds.items()})
    return Rest(
        connect(ElasticsearchEndpoint(hosts=hosts), timeouts),
        timeouts=timeouts,
        log=logging.getLogger("test"),
    )


def test_another_host_is_asked(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Hosts that refuse are passed over, whichever comes first; the log names each of them once."""
    away = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    rest = connection_to(*away, recorder.url)
    for _ in range(12):
        assert rest.call("GET", "/", about="index 'orders'").status == 200
    rest.close()
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(recorder.seen) == 12
    assert 1 <= len(told) == len(set(told)) <= 2
    assert all(line.startswith("index 'orders': no answer from http://127.0.0.1:") for line in told)
    assert all(line.endswith("Connection refused; asking another host") for line in told)


def test_a_host_that_is_back_is_told_of_again(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """A host that answered in between is news when it goes away a second time."""
    rest = connection_to(recorder.url, f"http://127.0.0.1:{free_port()}")
    error = TransientError("x: no answer")
    for _ in range(2):
        rest._say_away(recorder.url, error)
    pool = rest._client.transport.node_pool
    for node in pool.all():
        if node.base_url != recorder.url:
            pool.mark_dead(node)
    rest.call("GET", "/", about="x")
    rest._say_away(recorder.url, error)
    rest.close()
    assert [record.levelname for record in caplog.records if "asking another" in record.message] == [
        "WARNING",
        "WARNING",
    ]


def test_when_no_host_answers_all_are_named() -> None:
    """Each host is asked once, and the error names every one."""
    hosts = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
    rest = connection_to(*hosts)
    with pytest.raises(TransientError) as caught:
        rest.call("GET", "/", about="x")
    rest.close()
    assert all(str(caught.value).count(host) == 1 for host in hosts)


def test_a_late_answer_is_not_asked_for_elsewhere() -> None:
    """A search that is too slow for its limit would burden a second host as well: the caller decides."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        hosts = [f"http://127.0.0.1:{server.getsockname()[1]}" for server in (one, two)]
        rest = connection_to(*hosts, read=0.2)
        with pytest.raises(TransientError, match="ConnectionTimeout") as caught:
            rest.call("GET", "/", about="x")
        rest.close()
    assert sum(host in str(caught.value) for host in hosts) == 1


def test_a_closed_connection_asks_nobody(recorder: Recorder) -> None:
    """Closing ends a request for good: it does not go on to the next host."""
    rest = connection_to(recorder.url, f"http://127.0.0.1:{free_port()}")
    rest.close()
    with pytest.raises(TransientError):
        rest.call("GET", "/", about="x")
    assert recorder.seen == []
