"""An HTTP proxy in front of a real server that breaks the answers that a test tells it to."""

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
class Status:
    """Answer with this instead of asking the server.

    :param code: HTTP status.
    :param body: of the answer.
    :param headers: of the answer.
    """

    code: int
    body: bytes = b"<html>bad gateway</html>"
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "text/html"),)


Fault: TypeAlias = Literal["reset", "truncate", "hang"] | Status | None
Plan: TypeAlias = Callable[[str, int], Fault]
"""Called with the path, and the number of the request of this method on it; None lets it pass."""


class FaultProxy:
    """Passes requests on, or breaks them.

    :param target: URL of the real server.
    :param plan: what to do with each request.
    """

    def __init__(self, target: str, plan: Plan) -> None:
        self._netloc = urlsplit(target).netloc
        self._plan = plan
        self._counts: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()
        self.released = threading.Event()
        self.hanging = threading.Event()

    def fault(self, method: str, path: str) -> Fault:
        """Count a request and return what becomes of it."""
        key = (method, path.partition("?")[0])
        with self._lock:
            self._counts[key] = number = self._counts.get(key, 0) + 1
        return self._plan(key[1], number)

    def count(self, method: str, path: str) -> int:
        """Return how many requests came on a path."""
        return self._counts.get((method, path), 0)

    def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Status:
        """Ask the real server."""
        connection = http.client.HTTPConnection(self._netloc, timeout=60)
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            kept = tuple(
                (name, value)
                for name, value in response.getheaders()
                if name.lower() not in {"transfer-encoding", "content-length"}
            )
            return Status(response.status, response.read(), kept)
        finally:
            connection.close()


@contextmanager
def fault_proxy(target: str, plan: Plan) -> Iterator[tuple[str, FaultProxy]]:
    """Run a proxy for a ``with`` block; give its URL and itself."""
    proxy = FaultProxy(target, plan)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        @override
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.fault(self.command, self.path)
            if fault == "hang":
                proxy.hanging.set()
                proxy.released.wait(60)
            if fault in {"reset", "hang"}:
                self._reset()
                return
            passed = {"Content-Type": "application/json", "Accept": "application/json"}
            status = (
                fault if isinstance(fault, Status) else proxy.answer(self.command, self.path, body, passed)
            )
            self.send_response(status.code)
            for name, value in status.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(status.body)))
            self.end_headers()
            if fault == "truncate":
                self.wfile.write(status.body[: len(status.body) // 2])
                self._reset()
            else:
                self.wfile.write(status.body)

        def _reset(self) -> None:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

        do_GET = do_POST = do_PUT = do_DELETE = _pass  # noqa: N815  # the names that http.server looks for

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        @override
        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing: a client that goes away in the middle is what these tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", proxy
    finally:
        proxy.released.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
