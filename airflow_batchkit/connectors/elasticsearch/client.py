"""The Elasticsearch client: TLS verified, our timeouts, none of its own retries, answers left as bytes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch.node import bounded_node
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from elastic_transport import Serializer
    from elasticsearch import Elasticsearch

    from airflow_batchkit.engine.policies import Timeouts

log = logging.getLogger(__name__)

# A host that failed comes back only after every other one has had its chance, also with slow timeouts.
LEFT_OUT_SECONDS = 30.0
_MIMETYPES = (
    "application/json",
    "application/vnd.elasticsearch+json",
    "text/plain",
    "text/html",
)


@dataclass(frozen=True, kw_only=True, repr=False)
class ElasticsearchEndpoint(Value):
    """Where an Elasticsearch is and how to get in; the ``repr`` shows no secret.

    :param hosts: URLs such as ``https://search.example:9200``, without user and password in them.
    :param cloud_id: instead of ``hosts``, for Elastic Cloud.
    :param api_key: the base64 text that the server gave out.
    :param username: instead of ``api_key``, together with ``password``.
    :param password: see ``username``.
    :param ca_certs: file with the certificates to trust. Default: the system's.
    :param verify_certs: check the server's certificate. Default True.
    :param fingerprint: SHA-256 of the certificate to trust, in hex, instead of ``ca_certs``.
    :param http_compress: let the server compress its answers. Default False: it costs the server three times
        the processor time, and is unsafe over https where an attacker can choose some of the content.
    """

    hosts: tuple[str, ...] = ()
    cloud_id: str | None = None
    api_key: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_certs: str | None = None
    verify_certs: bool = True
    fingerprint: str | None = None
    http_compress: bool = False

    @override
    def check(self) -> None:
        """Refuse what no server can be reached with.

        :raises UsageError: which setting is missing, contradicts another, or is no URL.
        """
        if bool(self.hosts) == bool(self.cloud_id):
            raise UsageError("an Elasticsearch connection needs either hosts or a cloud_id")
        for host in self.hosts:
            _check_url(host)
        if self.api_key and self.username:
            raise UsageError("an Elasticsearch connection has an api_key or a username, not both")
        if bool(self.username) != bool(self.password):
            raise UsageError("an Elasticsearch connection with a username needs a password, and the reverse")
        if self.fingerprint and not self.verify_certs:
            raise UsageError("a fingerprint cannot be checked with verify_certs=False: leave one of them out")

    @property
    def secure(self) -> bool:
        """Whether any server is reached by https."""
        return bool(self.cloud_id) or any(urlsplit(host).scheme == "https" for host in self.hosts)


def connect(endpoint: ElasticsearchEndpoint, timeouts: Timeouts) -> Elasticsearch:
    """Make a client, which connects at its first request and is closed by the caller.

    It never retries, follows no redirects, looks for no other nodes, and its answers are bytes. Send requests
    through :class:`~airflow_batchkit.connectors.elasticsearch.rest.Rest`, which classifies what goes wrong.

    :param endpoint: where to, and how to get in.
    :param timeouts: ``connect``, ``read`` and ``request`` hold for every request.
    :raises UsageError: the settings do not make a client (a CA file that cannot be read).
    """
    from elasticsearch import Elasticsearch

    _quiet_transport_log()
    settings: dict[str, Any] = {
        "node_class": bounded_node(timeouts),
        "serializers": dict.fromkeys(_MIMETYPES, _bytes_serializer()),
        "max_retries": 0,
        "retry_on_timeout": False,
        "dead_node_backoff_factor": LEFT_OUT_SECONDS,
        "request_timeout": timeouts.request.total_seconds(),
        "http_compress": endpoint.http_compress,
        **({"cloud_id": endpoint.cloud_id} if endpoint.cloud_id else {"hosts": list(endpoint.hosts)}),
        **_credentials(endpoint),
        **(_tls(endpoint) if endpoint.secure else {}),
    }
    try:
        return Elasticsearch(**settings)
    except (ValueError, OSError) as error:
        raise UsageError(f"these connection settings make no Elasticsearch client: {error}") from error


def _check_url(host: str) -> None:
    url = urlsplit(host)
    try:
        complete = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        complete = False
    if "@" in url.netloc:
        raise UsageError(
            "an Elasticsearch host holds a user or password: put them into the connection's own fields"
        )
    if not complete:
        raise UsageError(f"Elasticsearch host {host!r}: must look like https://search.example:9200")


def _credentials(endpoint: ElasticsearchEndpoint) -> dict[str, Any]:
    if endpoint.api_key:
        return {"api_key": endpoint.api_key}
    if endpoint.username:
        return {"basic_auth": (endpoint.username, endpoint.password)}
    return {}


def _tls(endpoint: ElasticsearchEndpoint) -> dict[str, Any]:
    if endpoint.fingerprint:
        return {"ssl_assert_fingerprint": endpoint.fingerprint.replace(":", "").lower()}
    if not endpoint.verify_certs:
        log.warning(
            "TLS CERTIFICATES ARE NOT VERIFIED for %s: anyone on the way can read and change the data; "
            "set ca_certs or a fingerprint instead",
            endpoint.cloud_id or ", ".join(endpoint.hosts),
        )
        return {"verify_certs": False, "ssl_show_warn": False}
    if endpoint.ca_certs is None:
        return {}
    if not Path(endpoint.ca_certs).is_file():
        raise UsageError(f"the Elasticsearch connection's ca_certs {endpoint.ca_certs!r} is not a file here")
    return {"ca_certs": endpoint.ca_certs}


def _bytes_serializer() -> Serializer:
    from elastic_transport import JsonSerializer

    class BytesSerializer(JsonSerializer):
        @override
        def loads(self, data: bytes) -> bytes:
            return data

    return BytesSerializer()


def _quiet_transport_log() -> None:
    """Keep the libraries from logging each request, stack traces and certificates: our lines say what for."""
    for name, level in (("transport", logging.WARNING), ("node_pool", logging.ERROR)):
        logger = logging.getLogger(f"elastic_transport.{name}")
        if logger.level == logging.NOTSET:
            logger.setLevel(level)
    logging.getLogger("urllib3.connection").addFilter(_shows_no_certificate)


def _shows_no_certificate(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Certificate did not match")
