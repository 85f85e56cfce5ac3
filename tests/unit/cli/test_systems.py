"""What each kind of URL can be."""

from __future__ import annotations

import pytest

from airflow_batchkit.cli.systems import dead_letters_at, sink_at, source_at
from airflow_batchkit.cli.urls import parse
from airflow_batchkit.connectors.elasticsearch import ElasticsearchSource
from airflow_batchkit.engine.exceptions import UsageError


def test_elasticsearch_is_a_source() -> None:
    """Index, query and address reach the source; several indices become a list."""
    url = "elasticsearch+http://localhost:9200/orders"
    query = {"term": {"city": "Lisbon"}}
    settings = source_at(parse(url), query=query).serialize()
    assert (settings["conn_id"], settings["index"], settings["query"]) == (
        "http://localhost:9200",
        "orders",
        query,
    )
    settings = source_at(parse(f"{url},returns?conn_id=prod"), query=None).serialize()
    assert settings["conn_id"] == "http://localhost:9200?conn_id=prod"
    assert settings["index"] == ["orders", "returns"]


def test_sqlite_is_a_source() -> None:
    """Table, key and condition reach the source; without a key it finds the primary key itself."""
    source = source_at(parse("sqlite:///data/shop.db?table=orders&key=day,id&where=total>10"), query=None)
    settings = source.serialize()
    assert (settings["table"], settings["key"], settings["where"]) == ("orders", ["day", "id"], "total>10")
    assert settings["conn_id"] == "sqlite:///data/shop.db"
    assert source_at(parse("sqlite:///data/shop.db?table=orders"), query=None).serialize()["key"] == []


def test_postgres_is_a_source() -> None:
    """Address, table, key and condition reach the source; a conn_id is kept for the credentials."""
    url = "postgresql://db.example:5433/my%20shop?table=sales.orders&key=day,id&where=total>10"
    settings = source_at(parse(url), query=None).serialize()
    assert (settings["table"], settings["key"], settings["where"]) == (
        "sales.orders",
        ["day", "id"],
        "total>10",
    )
    assert settings["conn_id"] == "postgresql://db.example:5433/my%20shop"
    settings = source_at(parse("postgres://db.example/shop?table=t&conn_id=prod"), query=None).serialize()
    assert settings["conn_id"] == "postgresql://db.example/shop?conn_id=prod"
    with pytest.raises(UsageError, match="a postgresql:// URL takes …&where=CONDITION"):
        source_at(parse(url), query={"match_all": {}})


def test_object_storage_is_a_sink_and_keeps_dead_letters() -> None:
    """S3 and local folders take the output and the dead letters."""
    sink = sink_at(parse("s3://lake/orders?conn_id=aws"), compression="gzip").serialize()
    assert (sink["url"], sink["conn_id"], sink["compression"]) == ("s3://lake/orders", "conn_id=aws", "gzip")
    assert sink_at(parse("file:///data/my%20orders"), compression=None).serialize()["compression"] is None
    assert dead_letters_at(parse("file:///data/letters")).serialize()["url"] == "file:///data/letters"


@pytest.mark.parametrize("url", ["s3://lake/orders", "file:///data/orders"])
def test_object_storage_is_no_source_yet(url: str) -> None:
    """What cannot be read from is told with what can."""
    with pytest.raises(UsageError, match="cannot be read from"):
        source_at(parse(url), query=None)


@pytest.mark.parametrize(
    "url", ["elasticsearch+http://localhost:9200/orders", "sqlite:///shop.db?table=orders"]
)
def test_databases_are_no_sinks_yet(url: str) -> None:
    """What cannot be written to is told with what can."""
    with pytest.raises(UsageError, match="cannot be written to"):
        sink_at(parse(url), compression=None)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        (
            "elasticsearch+https://localhost:9200/letters?conn_id=es",
            {"index": "letters", "conn_id": "https://localhost:9200?conn_id=es"},
        ),
        ("sqlite:///d/x.db?table=t", {"table": "t", "conn_id": "sqlite:///d/x.db?mode=rw"}),
        (
            "postgresql://localhost/shop",
            {"table": "batchkit_dead_letters", "conn_id": "postgresql://localhost/shop"},
        ),
    ],
)
def test_databases_keep_dead_letters(url: str, kept: dict[str, str]) -> None:
    """An index, or a table, takes the dead letters; a table has a name where none is given."""
    assert dead_letters_at(parse(url)).serialize() == kept


def test_only_a_run_makes_a_database_for_its_letters() -> None:
    """Who only looks at letters gets no empty file under a name that was mistyped."""
    location = parse("sqlite:///d/x.db")
    assert dead_letters_at(location, create=True).serialize()["conn_id"] == "sqlite:///d/x.db?mode=rwc"


def test_query_on_sql_and_missing_table_are_refused() -> None:
    """A query for Elasticsearch means nothing to SQLite, and a table has to be named."""
    with pytest.raises(UsageError, match="where=CONDITION"):
        source_at(parse("sqlite:///shop.db?table=orders"), query={"match_all": {}})
    with pytest.raises(UsageError, match="names no table"):
        source_at(parse("sqlite:///shop.db"), query=None)


def test_what_a_url_says_of_an_elasticsearch_source() -> None:
    """Patterns, an order, fields and leniency can be written into the URL."""
    url = "elasticsearch+http://localhost:9200/orders-*,-orders-test"
    asked = "sort=created_at:desc,%20id&source_includes=a.*,b&ignore_unavailable=true"
    source = source_at(parse(f"{url}?{asked}"), query=None)
    assert isinstance(source, ElasticsearchSource)
    assert list(source.index) == ["orders-*", "-orders-test"]
    assert source.sort == ["created_at:desc", "id"]
    assert source.source_includes == ["a.*", "b"]
    assert source.ignore_unavailable
    assert not source.allow_no_indices


def test_a_switch_in_a_url_means_yes_or_no() -> None:
    """Anything else is refused instead of being taken for no."""
    url = "elasticsearch+http://localhost:9200/orders?allow_no_indices=maybe"
    with pytest.raises(UsageError, match=r"\?allow_no_indices='maybe': must be true or false"):
        source_at(parse(url), query=None)
