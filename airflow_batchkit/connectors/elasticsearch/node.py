"""Connections to one Elasticsearch node, with the limits that urllib3 has no setting for.

A whole answer is bounded in time and in bytes, redirects are not followed, and closing ends reads that hang.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch.errors import AnswerTooLargeError

if TYPE_CHECKING:
    from elastic_transport import BaseNode, NodeConfig
    from elastic_transport._node import NodeApiResponse
    from urllib3.response import BaseHTTPResponse

    from airflow_batchkit.engine.policies import Timeouts

PIECE_BYTES = 128 * 1024

_NAME = "x-opaque-id"
# They come round: the server writes a deprecation into its log once for each id, and remembers 128 of them.
_names = itertools.cycle([f"batchkit-{secrets.token_hex(4)}-{number}" for number in range(97)])


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one request; ``elastic_transport`` hands its ``request_timeout`` to the node as it is.

    :param seconds: from sending to the whole answer.
    :param max_bytes: give up an answer that grows past this; None: no limit.
    :param asked: gets the URL of each node that is asked.
    """

    seconds: float
    max_bytes: int | None = None
    asked: list[str] = field(default_factory=list)


def bounded_node(timeouts: Timeouts) -> type[BaseNode]:
    """Make the node class for a client with these timeouts.

    :param timeouts: ``connect``, ``read`` and ``request`` are used.
    """
    import urllib3
    from elastic_transport import (
        ApiResponseMeta,
        ConnectionError as UnreachableError,
        ConnectionTimeout,
        HttpHeaders,
        TlsError,
        Urllib3HttpNode,
    )
    from elastic_transport._node import NodeApiResponse

    connect = timeouts.connect.total_seconds()
    read = timeouts.read.total_seconds()
    request = timeouts.request.total_seconds()

    class BoundedNode(Urllib3HttpNode):
        def __init__(self, config: NodeConfig) -> None:
            super().__init__(config)
            self._sockets = LiveSockets()
            self.pool.ConnectionCls = self._sockets.tracking(self.pool.ConnectionCls)

        @override
        def perform_request(
            self,
            method: str,
            target: str,
            body: bytes | None = None,
            headers: HttpHeaders | None = None,
            request_timeout: Any = None,
        ) -> NodeApiResponse:
            limits = request_timeout if isinstance(request_timeout, Limits) else Limits(request)
            limits.asked.append(self.base_url)
            name = next(_names)
            started = time.monotonic()
            use = self._sockets.limit(limits.seconds)
            try:
                response = self.pool.urlopen(
                    method,
                    self.path_prefix + target,
                    body=body,
                    headers={**self._headers, **(headers or {}), _NAME: name},
                    retries=False,
                    redirect=False,
                    timeout=urllib3.Timeout(connect=connect, read=min(read, limits.seconds)),
                    pool_timeout=max(1, int(connect)),
                    preload_content=False,
                )
                check_named(response, name)
                data = whole_answer(response, max_bytes=limits.max_bytes)
                if use.expired:  # a head that is cut off looks like a whole one without a body
                    raise TimeoutError
            except urllib3.exceptions.SSLError as error:
                raise TlsError(str(error)) from error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                late = use.expired or isinstance(error, (urllib3.exceptions.TimeoutError, TimeoutError))
                # Where no connection was made there was no request that could be late; to urllib3, even a
                # refused connection is a timeout.
                away = isinstance(error, urllib3.exceptions.ConnectTimeoutError)
                told = f"no whole answer came in {limits.seconds:g} s" if use.expired else str(error)
                raise (ConnectionTimeout if late and not away else UnreachableError)(told) from error
            finally:
                use.end()
            meta = ApiResponseMeta(
                node=self.config,
                duration=time.monotonic() - started,
                http_version="1.1",
                status=response.status,
                headers=HttpHeaders(response.headers),
            )
            return NodeApiResponse(meta, data)

        @override
        def close(self) -> None:
            super().close()
            self._sockets.shut()

    return BoundedNode


def check_named(response: BaseHTTPResponse, name: str) -> None:
    """Refuse the answer to another request, and close the connection on which they are mixed up.

    Elasticsearch sends ``X-Opaque-Id`` back as it came. Where something on the way takes it out, nothing is
    compared.

    :param response: opened without preloading its content.
    :param name: what the request was sent with.
    :raises ConnectionError: it was sent with another.
    """
    if response.headers.get(_NAME, name) != name:
        response.close()
        response.release_conn()
        raise ConnectionError("the answer to another request came")


def whole_answer(response: BaseHTTPResponse, *, max_bytes: int | None) -> bytes:
    """Read an answer to its end, and give its connection back.

    :param response: opened without preloading its content.
    :param max_bytes: give up past this many bytes; None: no limit.
    :raises AnswerTooLargeError: there are more than ``max_bytes``.
    """
    pieces: list[bytes] = []
    received = 0
    whole = False
    try:
        for piece in response.stream(PIECE_BYTES):
            pieces.append(piece)
            received += len(piece)
            if max_bytes is not None and received > max_bytes:
                raise AnswerTooLargeError(f"the answer is larger than {max_bytes:,} bytes")
        whole = True
    finally:
        # What is left in the socket must not become the answer to the next request.
        if not whole:
            response.close()
        response.release_conn()
    return b"".join(pieces)


class Use:
    """One request's use of a connection, which ends in time: also where each byte of an answer comes in time.

    :param seconds: after which the connection is shut.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self.connection: Any = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """Take in that the request is over."""
        self._timer.cancel()
        with self._lock:
            self.connection = None

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            if self.connection is not None:
                shut(self.connection)


def shut(connection: Any) -> None:
    """End reads and writes on a connection; whoever waits on it gets an error at once."""
    sock = connection.sock
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


class LiveSockets:
    """Knows the open sockets of a pool, also those that are in use, which the pool itself does not close."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: list[Any] = []
        self._mine = threading.local()

    def limit(self, seconds: float) -> Use:
        """Limit the request that this thread makes next."""
        use = self._mine.use = Use(seconds)
        return use

    def tracking(self, connection_class: type[Any]) -> type[Any]:
        """Return a connection class that reports here."""
        report = self._report
        mine = self._mine

        class TrackedConnection(connection_class):  # type: ignore[misc]  # http or https, known at run time
            @override
            def connect(self) -> None:
                super().connect()
                report(self)

            @override
            def putrequest(self, *args: Any, **kwargs: Any) -> None:
                mine.use.connection = self
                super().putrequest(*args, **kwargs)

        return TrackedConnection

    def shut(self) -> None:
        """End reads and writes on every socket."""
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            shut(connection)

    def _report(self, connection: Any) -> None:
        with self._lock:
            self._connections = [known for known in self._connections if known.sock is not None]
            if connection not in self._connections:
                self._connections.append(connection)
