"""A proxy in front of an S3 API that loses, refuses or delays answers as a test tells it to."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
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
    :param message: S3's words.
    """

    status: int
    code: str
    headers: tuple[tuple[str, str], ...] = ()
    message: str = "made up by a test"

    @property
    def body(self) -> bytes:
        """The error as S3 writes it."""
        return f"<Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>".encode()


Fault: TypeAlias = Refusal | Literal["reset", "apply and reset", "ignore conditions"] | None
Plan: TypeAlias = Callable[[str, str], Fault]
"""Called with method and path; None lets the request pass."""


@dataclass(frozen=True)
class Asked:
    """A request, as it came.

    :param method: HTTP method.
    :param path: with its query.
    :param headers: by their names in small letters.
    :param body: as it was sent.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Judge: TypeAlias = Callable[[Asked, int | None], Refusal | None]
"""Called before a request is passed on (None), and with the status of the answer; may refuse instead."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, netloc: str, plan: Plan, judge: Judge) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.netloc = netloc
        self._plan = plan
        self._judge = judge
        self._lock = threading.Lock()

    def fault(self, method: str, path: str) -> Fault:
        with self._lock:
            return self._plan(method, path)

    def judged(self, asked: Asked, status: int | None) -> Refusal | None:
        with self._lock:
            return self._judge(asked, status)

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: connections that break are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body of an answer are sent one after the other; the second would wait for an acknowledgement.
    disable_nagle_algorithm = True
    server: _Server

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body)
        fault = self.server.fault(self.command, self.path) or self.server.judged(asked, None)
        if isinstance(fault, Refusal):
            self._refuse(fault)
            return
        answer = None if fault == "reset" else self._ask(body, conditions=fault != "ignore conditions")
        if answer is None or fault == "apply and reset":
            self._reset()
        elif refusal := self.server.judged(asked, answer[0]):
            self._refuse(refusal)
        else:
            self._send(*answer)

    def _refuse(self, refusal: Refusal) -> None:
        self._send(refusal.status, [*refusal.headers, ("Content-Type", "application/xml")], refusal.body)

    def _ask(self, body: bytes, *, conditions: bool) -> tuple[int, list[tuple[str, str]], bytes]:
        kept = {
            name: value
            for name, value in self.headers.items()
            if conditions or not name.lower().startswith("if-")
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
def s3_proxy(target: str, plan: Plan = lambda *_: None, judge: Judge = lambda *_: None) -> Iterator[str]:
    """Run a proxy for a ``with`` block; give its URL."""
    server = _Server(urlsplit(target).netloc, plan, judge)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
