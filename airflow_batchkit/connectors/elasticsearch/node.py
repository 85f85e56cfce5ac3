"""Connections to one Elasticsearch node, with the limits that urllib3 has no setting for.

A whole answer is bounded in time and in bytes, redirects are not followed, and closing ends reads that hang.
"""

from __future__ import annotations

import contextlib
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
            started = time.monotonic()
            try:
                response = self.pool.urlopen(
                    method,
                    self.path_prefix + target,
                    body=body,
                    headers={**self._headers, **(headers or {})},
                    retries=False,
                    redirect=False,
                    timeout=urllib3.Timeout(connect=connect, read=min(read, limits.seconds)),
                    pool_timeout=max(1, int(connect)),
                    preload_content=False,
                )
                data = whole_answer(response, deadline=started + limits.seconds, max_bytes=limits.max_bytes)
            except urllib3.exceptions.SSLError as error:
                raise TlsError(str(error)) from error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                late = isinstance(error, (urllib3.exceptions.TimeoutError, TimeoutError))
                # Where no connection was made there was no request that could be late; to urllib3, even a
                # refused connection is a timeout.
                away = isinstance(error, urllib3.exceptions.ConnectTimeoutError)
                raise (ConnectionTimeout if late and not away else UnreachableError)(str(error)) from error
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


def whole_answer(response: BaseHTTPResponse, *, deadline: float, max_bytes: int | None) -> bytes:
    """Read an answer to its end, and give its connection back.

    :param response: opened without preloading its content.
    :param deadline: on the monotonic clock.
    :param max_bytes: give up past this many bytes; None: no limit.
    :raises AnswerTooLargeError: there are more than ``max_bytes``.
    :raises TimeoutError: the deadline has passed.
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
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"only {received:,} bytes of the answer came within the request's time limit"
                )
        whole = True
    finally:
        # What is left in the socket must not become the answer to the next request.
        if not whole:
            response.close()
        response.release_conn()
    return b"".join(pieces)


class LiveSockets:
    """Knows the open sockets of a pool, also those that are in use, which the pool itself does not close."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: list[Any] = []

    def tracking(self, connection_class: type[Any]) -> type[Any]:
        """Return a connection class that reports here."""
        report = self._report

        class TrackedConnection(connection_class):  # type: ignore[misc]  # http or https, known at run time
            @override
            def connect(self) -> None:
                super().connect()
                report(self)

        return TrackedConnection

    def shut(self) -> None:
        """End reads and writes on every socket; whoever waits on one gets an error at once."""
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def _report(self, connection: Any) -> None:
        with self._lock:
            self._connections = [known for known in self._connections if known.sock is not None]
            if connection not in self._connections:
                self._connections.append(connection)
