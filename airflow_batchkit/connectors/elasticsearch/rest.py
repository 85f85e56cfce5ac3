"""One request to Elasticsearch: bytes in, bytes out, errors classified."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from airflow_batchkit.connectors.elasticsearch.errors import classify, unreachable
from airflow_batchkit.connectors.elasticsearch.node import Limits

if TYPE_CHECKING:
    from elastic_transport import TransportApiResponse
    from elasticsearch import Elasticsearch

    from airflow_batchkit.engine.exceptions import BatchkitError
    from airflow_batchkit.engine.policies import Timeouts

ERRORS_FROM = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said.

    :param status: HTTP status.
    :param body: as it came.
    """

    status: int
    body: bytes


class Rest:
    """Sends requests through a client's transport, past its serialisers and its own error handling.

    A host that cannot be reached is left out for a while, and the same request goes to the next one, once to
    each: every request sent here may be sent twice. Safe to use from several threads.

    :param client: from :func:`~airflow_batchkit.connectors.elasticsearch.client.connect`.
    :param timeouts: ``request`` is the limit of each request unless it is called with another.
    :param log: gets one debug line per request.
    """

    def __init__(self, client: Elasticsearch, *, timeouts: Timeouts, log: logging.Logger) -> None:
        self._client = client
        self._seconds = timeouts.request.total_seconds()
        self._log = log
        self._closed = False
        self._away: set[str] = set()
        # The only place where the client keeps its authorization; its own perform_request would also change
        # the content type into one that other major versions of the server refuse.
        authorization = client._headers  # noqa: SLF001
        json_both_ways = {"accept": "application/json", "content-type": "application/json"}
        self._headers = {**authorization, **json_both_ways}

    @property
    def hosts(self) -> str:
        """The servers, for messages."""
        return ", ".join(node.base_url for node in self._client.transport.node_pool.all())

    def call(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | bytes | None = None,
        *,
        about: str,
        expect: tuple[int, ...] = (),
        seconds: float | None = None,
        max_bytes: int | None = None,
    ) -> Answer:
        """Send one request and return the whole answer.

        :param target: path and query string, quoted.
        :param body: sent as JSON; bytes are sent as they are.
        :param about: what the request is about, for messages and the log.
        :param expect: error statuses that are answers here, not errors.
        :param seconds: limit for this request. Default: ``Timeouts.request``.
        :param max_bytes: give up an answer that grows past this.
        :raises BatchkitError: as the error table classes it.
        :raises AnswerTooLargeError: the answer is larger than ``max_bytes``.
        """
        started = time.monotonic()
        sent = json.dumps(body, separators=(",", ":")).encode() if isinstance(body, Mapping) else body
        limits = Limits(seconds or self._seconds, max_bytes)
        meta, answer = self._ask(method, target, sent, about=about, limits=limits)
        answer = answer or b""
        self._log.debug(
            "%s: %s %s answered %d with %d bytes in %.3f s",
            about, method, target.partition("?")[0], meta.status, len(answer), time.monotonic() - started,
        )  # fmt: skip
        if meta.status >= ERRORS_FROM and meta.status not in expect:
            raise classify(meta.status, answer, about=about, retry_after=meta.headers.get("retry-after"))
        return Answer(meta.status, answer)

    def close(self) -> None:
        """Close every connection, also those that somebody waits on."""
        self._closed = True
        self._client.transport.close()

    def _ask(
        self, method: str, target: str, body: bytes | None, *, about: str, limits: Limits
    ) -> TransportApiResponse:
        """Ask one host, and where it cannot be reached the others in turn."""
        from elastic_transport import ConnectionError as UnreachableError, TlsError, TransportError

        others = len(self._client.transport.node_pool) - 1
        while True:
            try:
                answered = self._client.transport.perform_request(
                    method,
                    target,
                    body=body,
                    headers=self._headers,
                    request_timeout=cast("float", limits),
                    # The client's own setting does not reach its transport, which would try four times.
                    max_retries=0,
                )
            except TransportError as error:
                failure = unreachable(error, about=about, hosts=", ".join(limits.asked) or self.hosts)
                elsewhere = isinstance(error, UnreachableError) and not isinstance(error, TlsError)
                if not elsewhere or others <= 0 or self._closed:
                    raise failure from error
                self._say_away(limits.asked[-1], failure)
                others -= 1
            else:
                self._away.difference_update(limits.asked[-1:])
                return answered

    def _say_away(self, host: str, failure: BatchkitError) -> None:
        level = logging.DEBUG if host in self._away else logging.WARNING
        self._away.add(host)
        self._log.log(level, "%s; asking another host", failure)
