"""What each kind of URL can be: a source, a sink, a place for dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_batchkit.cli.s3_urls import s3_name, s3_settings
from airflow_batchkit.cli.urls import Location
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.hooks.switches import as_switch

if TYPE_CHECKING:
    from airflow_batchkit.connectors.letters.place import ReplayablePlace
    from airflow_batchkit.connectors.object_storage.store import ObjectStore
    from airflow_batchkit.engine.sink import Sink
    from airflow_batchkit.engine.source import OpenContext, Source


def source_at(location: Location, *, query: Mapping[str, Any] | None) -> Source:
    """Make the source that a URL names.

    :param query: the body of Elasticsearch's ``query``.
    :raises UsageError: nothing can be read from there, or not with a query.
    """
    if location.scheme.startswith("elasticsearch"):
        return _elasticsearch_source(location, query)
    if location.scheme in {"sqlite", "postgresql"}:
        if query is not None:
            raise UsageError(
                f"--query is a query for Elasticsearch; a {location.scheme}:// URL takes "
                "…&where=CONDITION instead"
            )
        return _sql_source(location)
    raise UsageError(
        f"{location.scheme}:// cannot be read from by this version; a source is "
        "elasticsearch+http://…, elasticsearch+https://…, sqlite:///… or postgresql://…"
    )


def sink_at(location: Location, *, compression: str | None) -> Sink:
    """Make the sink that a URL names.

    :param compression: ``gzip``, ``zstd`` or None.
    :raises UsageError: nothing can be written there.
    """
    if location.scheme not in {"s3", "file"}:
        raise UsageError(
            f"{location.scheme}:// cannot be written to by this version; a sink is s3://… or file:///…"
        )
    from airflow_batchkit.connectors.object_storage import ObjectStorageSink

    return ObjectStorageSink(
        url=_object_url(location),
        conn_id=s3_name(location.parameters),
        compression=compression,
        s3_settings=s3_settings(location.parameters),
    )


def dead_letters_at(location: Location, *, create: bool = False) -> ReplayablePlace:
    """Make the place for dead letters that a URL names.

    :param create: whether a database file may be made.
    :raises UsageError: nothing can be written there.
    """
    if location.scheme.startswith("elasticsearch"):
        from airflow_batchkit.connectors.elasticsearch import ElasticsearchDeadLetters

        return ElasticsearchDeadLetters(index=location.path, conn_id=elasticsearch_name(location))
    if location.scheme in {"sqlite", "postgresql"}:
        from airflow_batchkit.connectors.sql import SqlDeadLetters

        file = f"sqlite://{location.path}?mode={'rwc' if create else 'rw'}"
        conn_id = postgres_name(location) if location.scheme == "postgresql" else file
        table = location.parameters.get("table")
        return SqlDeadLetters(conn_id=conn_id, **({} if table is None else {"table": table}))
    from airflow_batchkit.connectors.object_storage import DeadLetters

    return DeadLetters(
        _object_url(location),
        conn_id=s3_name(location.parameters),
        s3_settings=s3_settings(location.parameters),
    )


def store_at(location: Location, context: OpenContext, *, what: str) -> ObjectStore:
    """Open the place for objects that a URL names; nothing is asked of it yet.

    :param what: which argument it is, for the message.
    :raises UsageError: objects do not lie there.
    """
    if location.scheme not in {"s3", "file"}:
        raise UsageError(f"{what}: {location.scheme}:// holds no objects; use s3://… or file:///…")
    from airflow_batchkit.connectors.object_storage.locations import parse_location
    from airflow_batchkit.connectors.object_storage.store import open_store

    return open_store(
        parse_location(_object_url(location)),
        s3_name(location.parameters),
        context,
        s3_settings=s3_settings(location.parameters),
    )


def elasticsearch_name(location: Location) -> str:
    """Name an Elasticsearch by its address, as :mod:`airflow_batchkit.cli.connections` resolves it."""
    address = f"{location.scheme.removeprefix('elasticsearch+')}://{location.host}"
    conn_id = location.parameters.get("conn_id")
    return address if conn_id is None else f"{address}?conn_id={quote(conn_id)}"


def postgres_name(location: Location) -> str:
    """Name a PostgreSQL by its address, as :mod:`airflow_batchkit.cli.connections` resolves it."""
    address = f"postgresql://{location.host}/{quote(location.path)}"
    conn_id = location.parameters.get("conn_id")
    return address if conn_id is None else f"{address}?conn_id={quote(conn_id)}"


def short_name(location: Location) -> str:
    """Return the few letters by which a person recognises the place, for file names."""
    if location.scheme in {"sqlite", "postgresql"}:
        return location.parameters.get("table", "")
    return location.path if location.scheme != "s3" else f"{location.host}/{location.path}"


def _elasticsearch_source(location: Location, query: Mapping[str, Any] | None) -> Source:
    from airflow_batchkit.connectors.elasticsearch import ElasticsearchSource

    indices = location.path.split(",")
    return ElasticsearchSource(
        conn_id=elasticsearch_name(location),
        index=indices if len(indices) > 1 else indices[0],
        query=None if query is None else dict(query),
        sort=_listed(location, "sort"),
        source_includes=_listed(location, "source_includes"),
        source_excludes=_listed(location, "source_excludes"),
        fields=_listed(location, "fields"),
        ignore_unavailable=_switch(location, "ignore_unavailable"),
        allow_no_indices=_switch(location, "allow_no_indices"),
    )


def _listed(location: Location, name: str) -> list[str]:
    text = location.parameters.get(name)
    return [] if text is None else [part.strip() for part in text.split(",")]


def _switch(location: Location, name: str) -> bool:
    return as_switch(f"?{name}", location.parameters.get(name, "false"))


def _sql_source(location: Location) -> Source:
    from airflow_batchkit.connectors.sql import SqlSource

    parameters = location.parameters
    if "table" not in parameters:
        raise UsageError(f"{location.url!r} names no table; write {location.url}?table=orders")
    key = parameters.get("key", "")
    return SqlSource(
        conn_id=postgres_name(location) if location.scheme == "postgresql" else f"sqlite://{location.path}",
        table=parameters["table"],
        key=tuple(column.strip() for column in key.split(",")) if key else (),
        where=parameters.get("where"),
    )


def _object_url(location: Location) -> str:
    if location.scheme == "file":
        return f"file://{quote(location.path)}"
    return f"s3://{location.host}/{location.path}".rstrip("/")
