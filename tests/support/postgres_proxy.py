"""A proxy in front of a real PostgreSQL that breaks connections at the message that a test tells it to.

It knows where each message of the protocol begins and ends, and understands nothing else of it:
https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

Fault: TypeAlias = Literal["reset", "halve", "halve and close", "lose the answer", "stall", "trickle"] | None
READY_FOR_QUERY = "Z"
_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104
_PIECE = 1 << 16
_TRICKLE_SECONDS = 0.02


@dataclass(frozen=True)
class Message:
    """One message on its way.

    :param number: counted over all connections and both directions, from 1.
    :param asked: it comes from the client.
    :param kind: the letter of its type; empty for the first of a client.
    :param content: all its bytes.
    """

    number: int
    asked: bool
    kind: str
    content: bytes


Plan: TypeAlias = Callable[[Message], Fault]
"""Called with each message before it is passed on; None lets it pass."""


class PostgresProxy:
    """Listens on a port of its own and passes on what comes.

    :param port: of the real server on this machine.
    :param plan: what to do with each message; a test may replace it while it runs.
    """

    def __init__(self, port: int, plan: Plan) -> None:
        self.plan = plan
        self.messages = 0
        self._target = port
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._listen()

    def refuse(self) -> None:
        """Cut all connections, and refuse new ones, as when the server is away."""
        # Whoever waits in accept() only wakes up when it is shut down.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset_all()

    def listen_again(self) -> None:
        """Take connections again, on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listen()

    def reset_all(self) -> None:
        """Cut all connections at once, without a word."""
        with self._lock:
            lines, self._open = self._open, set()
        for line in lines:
            _reset(line)

    def close(self) -> None:
        """End everything."""
        self.refuse()

    def fault(self, *, asked: bool, kind: str, content: bytes) -> Fault:
        """Count a message and ask the plan what becomes of it."""
        with self._lock:
            self.messages += 1
            message = Message(self.messages, asked, kind, content)
        return self.plan(message)

    def _listen(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=10)
        except OSError:
            _reset(client)
            return
        server.settimeout(None)
        for line in (client, server):
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= {client, server}
        pair = _Pair(self, client, server)
        for run in (pair.pass_questions, pair.pass_answers):
            threading.Thread(target=run, daemon=True).start()

    def forget(self, *lines: socket.socket) -> None:
        """Take connections that ended off the list."""
        with self._lock:
            self._open.difference_update(lines)


class _Pair:
    """One client's connection and the one that was made for it."""

    def __init__(self, proxy: PostgresProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._stalled = threading.Event()
        self._silent = threading.Event()
        self._trickling = threading.Event()

    def pass_questions(self) -> None:
        """Pass on what the client sends, until it ends."""
        with contextlib.suppress(OSError, EOFError), self._client.makefile("rb") as stream:
            self._pass_first(stream.read)
            goes_on = True
            while goes_on:
                kind, content = _message(stream.read)
                goes_on = self._pass(self._server, kind, content, asked=True)
            return
        self._end(self._server)

    def pass_answers(self) -> None:
        """Pass on what the server answers, until it ends."""
        with contextlib.suppress(OSError, EOFError), self._server.makefile("rb") as stream:
            goes_on = True
            while goes_on:
                kind, content = _message(stream.read)
                if not self._silent.is_set():
                    goes_on = self._pass(self._client, kind, content, asked=False)
                elif kind == READY_FOR_QUERY:  # it has done all that it was asked for
                    self._reset()
                    goes_on = False
            return
        self._end(self._client)

    def _pass_first(self, read: Callable[[int], bytes]) -> None:
        while True:
            size = _exactly(read, 4)
            content = size + _exactly(read, int.from_bytes(size) - 4)
            if int.from_bytes(content[4:8]) not in {_SSL_REQUEST, _GSS_REQUEST}:
                break
            self._client.sendall(b"N")
        self._pass(self._server, "", content, asked=True)

    def _pass(self, to: socket.socket, kind: str, content: bytes, *, asked: bool) -> bool:
        """Pass a message on, or break it; return whether the connection goes on."""
        fault = self._proxy.fault(asked=asked, kind=kind, content=content)
        if fault == "stall":
            self._stalled.set()
        if self._stalled.is_set():
            return False
        if fault == "trickle":
            self._trickling.set()
        if fault == "lose the answer":
            self._silent.set()
            fault = None if asked else "reset"
        if fault is None:
            self._send(to, content)
            return True
        if fault in {"halve", "halve and close"}:
            to.sendall(content[: len(content) // 2])
        if fault == "halve and close":
            self._end(to)
        elif fault != "trickle":
            self._reset()
        else:
            self._send(to, content)
            return True
        return False

    def _send(self, to: socket.socket, content: bytes) -> None:
        if not self._trickling.is_set():
            to.sendall(content)
            return
        for at in range(len(content)):
            to.sendall(content[at : at + 1])
            time.sleep(_TRICKLE_SECONDS)

    def _end(self, to: socket.socket) -> None:
        """Say that nothing more comes; the other direction stays open."""
        if self._stalled.is_set():
            return
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_WR)

    def _reset(self) -> None:
        self._proxy.forget(self._client, self._server)
        _reset(self._client)
        _reset(self._server)


def at(number: int, fault: Fault) -> Plan:
    """Plan one fault, at the message of this number."""
    return lambda message: fault if message.number == number else None


@contextlib.contextmanager
def proxied(port: int, plan: Plan = lambda _: None) -> Iterator[PostgresProxy]:
    """Run a proxy in front of a server for the time of a ``with`` block."""
    proxy = PostgresProxy(port, plan)
    try:
        yield proxy
    finally:
        proxy.close()


def _message(read: Callable[[int], bytes]) -> tuple[str, bytes]:
    head = _exactly(read, 5)
    return chr(head[0]), head + _exactly(read, int.from_bytes(head[1:]) - 4)


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    found = read(count)
    if len(found) < count:
        raise EOFError
    return found


def _reset(line: socket.socket) -> None:
    """Close a connection so that its other end sees a reset."""
    with contextlib.suppress(OSError):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Whoever reads from it in another thread holds it open until it is shut down.
        line.shutdown(socket.SHUT_RD)
    line.close()
