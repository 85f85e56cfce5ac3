"""A proxy in front of an S3 API that loses, refuses or delays answers as a test tells it to."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from typing_extensions import override


@dataclass(frozen=True)
class Refusal:
    """Answer with an error instead of asking the server.

    :param status: HTTP status.
    :param code: S3's error code.
    :param headers: more headers.
    """

    status: int
    code: str
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> bytes:
        """The error as S3 writes it."""
        return f"<Error><Code>{self.code}</Code><Message>made up by a test</Message></Error>".encode()


Fault: TypeAlias = Refusal | Literal["reset", "apply and reset", "ignore conditions"] | None
Plan: TypeAlias = Callable[[str, str], Fault]
"""Called with method and path; None lets the request pass."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, netloc: str, plan: Plan) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.netloc = netloc
        self._plan = plan
        self._lock = threading.Lock()

    def fault(self, method: str, path: str) -> Fault:
        with self._lock:
            return self._plan(method, path)

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: connections that break are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault(self.command, self.path)
        if isinstance(fault, Refusal):
            self._send(fault.status, [*fault.headers, ("Content-Type", "application/xml")], fault.body)
            return
        answer = None if fault == "reset" else self._ask(body, conditions=fault != "ignore conditions")
        if answer is None or fault == "apply and reset":
            self._reset()
        else:
            self._send(*answer)

    def _ask(self, body: bytes, *, conditions: bool) -> tuple[int, list[tuple[str, str]], bytes]:
        kept = {
            name: value
            for name, value in self.headers.items()
            if name.lower() != "host" and (conditions or not name.lower().startswith("if-"))
        }
        connection = http.client.HTTPConnection(self.server.netloc, timeout=60)
        try:
            connection.request(self.command, self.path, body=body, headers=kept)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                self.send_header(name, value)
        # The answer to a HEAD has the length of what it does not send.
        length = next((value for name, value in headers if name.lower() == "content-length"), "0")
        self.send_header("Content-Length", str(len(body)) if body else length)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _pass  # noqa: N815  # http.server looks for these names


@contextmanager
def s3_proxy(target: str, plan: Plan) -> Iterator[str]:
    """Run a proxy for a ``with`` block; give its URL."""
    server = _Server(urlsplit(target).netloc, plan)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
