"""Takes a URL apart, and refuses what can only be a mistake, or a secret in the wrong place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from airflow_batchkit.cli.s3_urls import PARAMETERS as S3_PARAMETERS
from airflow_batchkit.engine.exceptions import UsageError

ELASTICSEARCH_CREDENTIALS = (
    "BATCHKIT_ELASTICSEARCH_API_KEY, or BATCHKIT_ELASTICSEARCH_USERNAME and BATCHKIT_ELASTICSEARCH_PASSWORD, "
    "or ?conn_id=<id> with AIRFLOW_CONN_<ID>"
)
POSTGRES_CREDENTIALS = "PGUSER and PGPASSWORD (or PGPASSFILE), or ?conn_id=<id> with AIRFLOW_CONN_<ID>"
S3_CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ?conn_id=<id> with AIRFLOW_CONN_<ID>"

_ELASTICSEARCH_PARAMETERS = {
    "conn_id",
    "sort",
    "source_includes",
    "source_excludes",
    "fields",
    "ignore_unavailable",
    "allow_no_indices",
}
_PARAMETERS = {
    "elasticsearch+http": _ELASTICSEARCH_PARAMETERS,
    "elasticsearch+https": _ELASTICSEARCH_PARAMETERS,
    "s3": S3_PARAMETERS,
    "file": set[str](),
    "sqlite": {"table", "key", "where"},
    "postgresql": {"table", "key", "where", "conn_id"},
}
_FORMS = (
    "elasticsearch+http://host:port/index, elasticsearch+https://host:port/index, s3://bucket/prefix, "
    "file:///path, sqlite:///path?table=…, postgresql://host:port/database?table=…"
)
_NOT_YET = {"mysql"}
# A password may hold "/", "?" or "#", which would end the host for a parser: look at the text itself.
_PASSWORD = re.compile(r"^[^:/]+://[^@]*:[^@]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A URL, taken apart. It holds no secret: a URL with one is refused.

    :param url: as it was typed, without its parameters.
    :param scheme: ``elasticsearch+http``, ``s3``, ``file``, ``sqlite``, …
    :param host: ``host:port`` of a server, for an Elasticsearch several with commas between them; bucket of
        an S3 URL; else empty.
    :param path: what follows the host, decoded where the scheme's paths are encoded; without the first ``/``
        where there is a host.
    :param parameters: what follows ``?``.
    """

    url: str
    scheme: str
    host: str
    path: str
    parameters: Mapping[str, str]


def parse(url: str) -> Location:
    """Take a URL apart.

    :raises UsageError: it holds a password (which the message does not repeat), or its form is unknown.
    """
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    scheme = "postgresql" if scheme == "postgres" else scheme
    _refuse_secrets(url, scheme)
    if scheme in _NOT_YET:
        raise UsageError(f"{scheme}:// URLs are not supported by this version; use one of: {_FORMS}")
    if scheme not in _PARAMETERS:
        raise UsageError(f"cannot tell what {url.partition('?')[0]!r} is; use one of: {_FORMS}")
    parts = urlsplit(url)
    if parts.fragment:
        raise UsageError(f"{url.partition('#')[0]!r}: write # as %23")
    location = Location(
        url=url.partition("?")[0],
        scheme=scheme,
        host=parts.netloc,
        path=parts.path,
        parameters=_parameters(parts.query, scheme),
    )
    if scheme.startswith("elasticsearch"):
        return _elasticsearch(location)
    if scheme == "postgresql":
        return _database(location)
    return _bucket(location) if scheme == "s3" else _local(location)


def _refuse_secrets(url: str, scheme: str) -> None:
    authority = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]
    has_host = scheme.startswith(("elasticsearch", "postgresql")) or scheme not in _PARAMETERS
    if scheme == "postgresql":
        url = url.partition("?")[0]  # a condition may well hold these signs
    if "@" not in authority and not (has_host and _PASSWORD.match(url)):
        return
    if scheme == "s3":
        instead = S3_CREDENTIALS
    elif scheme.startswith(("elasticsearch", "http")):
        instead = ELASTICSEARCH_CREDENTIALS
    elif scheme == "postgresql":
        instead = POSTGRES_CREDENTIALS
    else:
        instead = "?conn_id=<id> with AIRFLOW_CONN_<ID>"
    raise UsageError(
        f"the {scheme}:// URL holds a user or a password, which shells and process lists would show; "
        f"take it out and set {instead}"
    )


def _parameters(query: str, scheme: str) -> Mapping[str, str]:
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _PARAMETERS[scheme]:
            known = ", ".join(sorted(_PARAMETERS[scheme])) or "none"
            raise UsageError(f"{scheme}:// URLs have no parameter {name!r} (known: {known})")
        if not value or name in parameters:
            raise UsageError(f"parameter {name!r} of the {scheme}:// URL must be given once, with a value")
        parameters[name] = value
    return parameters


def _elasticsearch(location: Location) -> Location:
    example = f"{location.scheme}://localhost:9200/orders"
    try:
        hosts = [urlsplit(f"//{host}") for host in location.host.split(",")]
        named = all(parts.hostname and parts.port is not None for parts in hosts)
    except ValueError as error:
        raise UsageError(
            f"the port in the {location.scheme}:// URL is not a port number; write {example}"
        ) from error
    if not named:
        raise UsageError(f"{location.url!r} must name host and port; write {example}")
    path = unquote(location.path.strip("/"))
    if not path:
        raise UsageError(f"{location.url!r} names no index; write {example}, or several as …/orders,returns")
    return _replace_path(location, path)


def _database(location: Location) -> Location:
    example = "postgresql://localhost:5432/shop?table=orders"
    try:
        parts = urlsplit(f"//{location.host}")
        named = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise UsageError(
            f"the port in the postgresql:// URL is not a port number; write {example}"
        ) from error
    path = unquote(location.path.strip("/"))
    if not named or not path:
        raise UsageError(f"the postgresql:// URL must name host and database; write {example}")
    return _replace_path(location, path)


def _bucket(location: Location) -> Location:
    if not location.host:
        raise UsageError(f"{location.url!r} names no bucket; write s3://bucket/prefix")
    return _replace_path(location, location.path.strip("/"))


def _local(location: Location) -> Location:
    if location.host not in {"", "localhost"}:
        raise UsageError(
            f"{location.url!r} names a host ({location.host}); a path on this machine has three slashes: "
            f"{location.scheme}:///{location.host}{location.path}"
        )
    # SQLAlchemy writes an absolute SQLite path with four slashes, everybody else with three: both are meant.
    path = "/" + unquote(location.path).lstrip("/")
    if path == "/":
        raise UsageError(f"{location.url!r} names no path; write {location.scheme}:///some/path")
    return _replace_path(location, path)


def _replace_path(location: Location, path: str) -> Location:
    return Location(
        url=location.url,
        scheme=location.scheme,
        host=location.host,
        path=path,
        parameters=location.parameters,
    )
