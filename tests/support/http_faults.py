"""A proxy in front of a real HTTP server that breaks what a test tells it to break.

:mod:`tests.support.fault_proxy` and :mod:`tests.support.s3_proxy` are two ways to say what.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from typing_extensions import override

AWAY_SECONDS = 0.3
TRICKLE_SECONDS = 0.7
PARTNER_SECONDS = 0.5
LONGEST_SECONDS = 60.0
_OURS = {"transfer-encoding", "connection", "content-length", "keep-alive"}


@dataclass(frozen=True)
class Status:
    """An answer; as a fault: answer so instead of asking the server.

    :param code: HTTP status.
    :param body: of the answer.
    :param headers: of the answer.
    """

    code: int
    body: bytes = b"<html>bad gateway</html>"
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "text/html"),)


Breakage: TypeAlias = Literal[
    "away",  # the port is closed for a moment, and with it this connection; nothing is asked
    "reset",  # the connection is reset; nothing is asked
    "hang",  # no answer comes; nothing is asked
    "apply and reset",  # the server has done it; the connection is reset before the first byte
    "apply and hang",  # the server has done it; no answer comes
    "reset in the head",
    "truncate",  # half of the body, then a reset
    "truncate in chunks",  # half of the body in chunks, then the end
    "truncate without length",  # half of the body, then the end, as HTTP/1.0 allows
    "trickle",  # the body byte by byte, none later than Timeouts.read
    "twice",  # delivered twice; the second answer comes
    "twice, first",  # delivered twice; the first answer comes
    "swap",  # this request and another one that is in flight get each other's answers
    "previous",  # the answer to the request before
    "ignore conditions",
]
Fault: TypeAlias = Breakage | Status | None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as it came.

    :param method: HTTP method.
    :param path: with its query.
    :param headers: by their names in small letters.
    :param body: as it was sent.
    :param index: 1 for the first request of all.
    :param number: 1 for the first of this method on this path, whatever the query.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    index: int = 0
    number: int = 0

    @property
    def resource(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]


Plan: TypeAlias = Callable[[Asked], Fault]
"""Called with each request, one at a time; None lets it pass."""
Review: TypeAlias = Callable[[Asked, Status], Status]
"""Called with each request and the server's answer; returns the answer to give."""


@dataclass
class _Offer:
    """An answer that waits to be swapped."""

    answer: Status
    taken: bool = False


class _Exchange:
    """Where answers are swapped, and the last one is kept."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._offer: _Offer | None = None
        self._last: Status | None = None

    def swapped(self, answer: Status, *, wait: bool) -> Status:
        """Give an answer for another one, where there is one.

        :param wait: for another one, half a second at most.
        """
        with self._changed:
            self._last = answer
            if self._offer is not None:
                offered, self._offer = self._offer, None
                theirs, offered.answer, offered.taken = offered.answer, answer, True
                self._changed.notify_all()
                return theirs
            if not wait:
                return answer
            mine = _Offer(answer)
            self._offer = mine
            if not self._changed.wait_for(lambda: mine.taken, PARTNER_SECONDS):
                self._offer = None
            return mine.answer

    def previous(self, answer: Status) -> Status:
        """Return the answer before this one."""
        with self._changed:
            before = self._last or answer
            self._last = answer
            return before


class HttpProxy(ThreadingHTTPServer):
    """Passes requests on, or breaks them.

    :param target: URL of the real server.
    :param plan: what becomes of each request.
    :param review: may change an answer.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, target: str, plan: Plan, review: Review) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.netloc = urlsplit(target).netloc
        self.review = review
        self.released = threading.Event()
        self.hanging = threading.Event()
        self.exchange = _Exchange()
        self.struck: list[tuple[Asked, Fault]] = []
        self.port: int = self.server_address[1]
        self._plan = plan
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._stopped = threading.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> int:
        """How many requests came."""
        return self._counts.total()

    def count(self, method: str, path: str) -> int:
        """Return how many requests of a method came on a path."""
        return self._counts[method, path]

    def fault(self, asked: Asked) -> tuple[Asked, Fault]:
        """Count a request, and return what becomes of it."""
        with self._lock:
            self._counts[asked.method, asked.resource] += 1
            asked = replace(
                asked, index=self._counts.total(), number=self._counts[asked.method, asked.resource]
            )
            fault = self._plan(asked)
            if fault is not None:
                self.struck.append((asked, fault))
            return asked, fault

    def go_away(self) -> None:
        """Refuse connections for a moment; called by a handler's thread."""
        self.shutdown()

    def serve(self) -> None:
        """Answer until :meth:`stop`, with pauses in which nobody listens."""
        while not self._stopped.is_set():
            self.serve_forever(0.02)
            self.socket.close()
            if self._stopped.wait(AWAY_SECONDS):
                return
            self.socket = socket.socket()
            self.server_address = ("127.0.0.1", self.port)
            self.server_bind()
            self.server_activate()

    def stop(self) -> None:
        """Answer no more, and let go who waits."""
        self._stopped.set()
        self.released.set()
        self.shutdown()

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: connections that break are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body of an answer are sent one after the other; the second would wait for an acknowledgement.
    disable_nagle_algorithm = True
    server: HttpProxy

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked, fault = self.server.fault(
            Asked(method=self.command, path=self.path, headers=headers, body=body)
        )
        if isinstance(fault, Status):
            self._send(fault)
        elif fault in {"away", "reset", "hang"}:
            self._do_not_answer(fault)
        else:
            self._break(fault, self._answer(asked, fault))

    def _answer(self, asked: Asked, fault: Fault) -> Status:
        """Ask the server, and swap its answer for another where that is the fault."""
        exchange = self.server.exchange
        answer = self._ask(asked, conditions=fault != "ignore conditions")
        if fault in {"twice", "twice, first"}:
            second = self._ask(asked)
            answer = second if fault == "twice" else answer
        if fault == "previous":
            return exchange.previous(answer)
        return self.server.review(asked, exchange.swapped(answer, wait=fault == "swap"))

    def _do_not_answer(self, fault: Fault) -> None:
        if fault == "hang":
            self._hang()
        if fault == "away":
            self.server.go_away()
        self._reset()

    def _break(self, fault: Fault, answer: Status) -> None:
        """Give the answer, or what is left of it."""
        half = answer.body[: len(answer.body) // 2]
        match fault:
            case "apply and reset":
                self._reset()
            case "apply and hang":
                self._hang()
                self._reset()
            case "reset in the head":
                self.wfile.write(f"HTTP/1.1 {answer.code} ".encode())
                self._reset()
            case "truncate":
                self._send(answer, body=half)
                self._reset()
            case "truncate in chunks":
                self._send(answer, body=b"%x\r\n%b\r\n" % (len(half), half), framing="chunked")
                self.close_connection = True
            case "truncate without length":
                self._send(answer, body=half, framing="close")
                self.close_connection = True
            case "trickle":
                self._send(answer, body=b"")
                for byte in answer.body:
                    if self.server.released.wait(TRICKLE_SECONDS):
                        return
                    self.wfile.write(bytes([byte]))
            case _:
                self._send(answer)

    def _ask(self, asked: Asked, *, conditions: bool = True) -> Status:
        kept = {
            name: value
            for name, value in asked.headers.items()
            if name not in _OURS and name != "expect" and (conditions or not name.startswith("if-"))
        }
        connection = http.client.HTTPConnection(self.server.netloc, timeout=LONGEST_SECONDS)
        try:
            connection.request(asked.method, asked.path, body=asked.body, headers=kept)
            response = connection.getresponse()
            return Status(response.status, response.read(), tuple(response.getheaders()))
        finally:
            connection.close()

    def _send(
        self,
        answer: Status,
        *,
        body: bytes | None = None,
        framing: Literal["length", "chunked", "close"] = "length",
    ) -> None:
        """Send an answer.

        :param body: what really follows the head. Default: the answer's.
        """
        self.send_response_only(answer.code)
        for name, value in answer.headers:
            if name.lower() not in _OURS:
                self.send_header(name, value)
        if framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        elif framing == "close":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(self._length(answer)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else answer.body if body is None else body)

    def _length(self, answer: Status) -> int:
        # The answer to a HEAD has the length of what it does not send.
        stated = next((value for name, value in answer.headers if name.lower() == "content-length"), "0")
        return int(stated) if self.command == "HEAD" else len(answer.body)

    def _hang(self) -> None:
        self.server.hanging.set()
        self.server.released.wait(LONGEST_SECONDS)

    def _reset(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _pass  # noqa: N815  # http.server looks for these names


@contextmanager
def http_proxy(
    target: str, plan: Plan = lambda _asked: None, *, review: Review = lambda _asked, answer: answer
) -> Iterator[HttpProxy]:
    """Run a proxy for a ``with`` block.

    :param target: URL of the real server.
    :param plan: what becomes of each request.
    :param review: may change an answer.
    """
    proxy = HttpProxy(target, plan, review)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join(10)
        proxy.server_close()
