"""An Airflow connection of type ``elasticsearch`` as the connector's endpoint.

Host, port, login, password and schema (``http`` or ``https``) as in the elasticsearch provider; several hosts
are separated by commas. Extras, each read by its name:

==========================  ==============================================
``api_key``                 instead of login and password
``cloud_id``                instead of a host, for Elastic Cloud
``ca_certs``                file with the certificates to trust
``verify_certs``            default true
``ssl_assert_fingerprint``  SHA-256 of the certificate to trust
``http_compress``           default false
==========================  ==============================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_batchkit.connectors.elasticsearch.client import ElasticsearchEndpoint
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.hooks.switches import as_optional_text, as_switch

if TYPE_CHECKING:
    from airflow.sdk import Connection

_DEFAULT_PORT = 9200
_SCHEMES = ("http", "https")


def elasticsearch_endpoint(connection: Connection) -> ElasticsearchEndpoint:
    """Read a connection; call it in the Airflow thread only: masking its secrets is a call to Airflow.

    :raises UsageError: the connection does not say how to reach a server.
    """
    extras: dict[str, Any] = connection.extra_dejson
    cloud_id = as_optional_text(extras.get("cloud_id"))
    api_key = as_optional_text(extras.get("api_key"))
    try:
        return ElasticsearchEndpoint(
            hosts=() if cloud_id else _hosts(connection),
            cloud_id=cloud_id,
            api_key=api_key,
            username=connection.login or None,
            password=connection.password or None,
            ca_certs=as_optional_text(extras.get("ca_certs")),
            verify_certs=as_switch("verify_certs", extras.get("verify_certs", True)),
            fingerprint=as_optional_text(extras.get("ssl_assert_fingerprint")),
            http_compress=as_switch("http_compress", extras.get("http_compress", False)),
        )
    except UsageError as error:
        message = f"connection {connection.conn_id!r}: {error}"
        raise UsageError(message) from error


def _hosts(connection: Connection) -> tuple[str, ...]:
    names = [name.strip() for name in (connection.host or "").split(",") if name.strip()]
    if not names:
        raise UsageError("has neither a host nor a cloud_id")
    scheme = (connection.schema or "http").lower()
    if scheme not in _SCHEMES:
        raise UsageError(f"schema {connection.schema!r}: must be http or https")
    return tuple(_url(name, scheme, connection.port) for name in names)


def _url(name: str, scheme: str, port: int | None) -> str:
    if "://" in name:
        scheme, _, name = name.partition("://")
    name = name.rstrip("/")
    # A bare IPv6 address has several colons and needs brackets; with one, the host brings its port along.
    if name.count(":") > 1 and not name.startswith("["):
        name = f"[{name}]"
    has_port = ":" in name.rpartition("]")[2]
    return f"{scheme}://{name}" if has_port else f"{scheme}://{name}:{port or _DEFAULT_PORT}"
