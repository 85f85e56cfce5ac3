"""URLs of the command line: what they mean, and what is refused in one line that repeats no secret."""

from __future__ import annotations

import pytest

from airflow_batchkit.cli.urls import parse
from airflow_batchkit.engine.exceptions import UsageError


def test_elasticsearch_url_names_host_and_indices() -> None:
    """Host, port and the list of indices are told apart, and a conn_id is kept."""
    location = parse("elasticsearch+https://es.example:9243/orders,returns?conn_id=prod")
    assert (location.scheme, location.host, location.path) == (
        "elasticsearch+https",
        "es.example:9243",
        "orders,returns",
    )
    assert location.parameters == {"conn_id": "prod"}


def test_bucket_and_prefix_are_told_apart() -> None:
    """The host of an S3 URL is the bucket, the rest the prefix without slashes at its ends."""
    location = parse("s3://lake/orders/ds=2026-11-01/")
    assert (location.host, location.path) == ("lake", "orders/ds=2026-11-01")


@pytest.mark.parametrize(
    "url", ["sqlite:///data/shop.db?table=orders", "sqlite:////data/shop.db?table=orders"]
)
def test_sqlite_path_is_absolute_with_three_and_with_four_slashes(url: str) -> None:
    """Both ways of writing an absolute path are understood."""
    assert parse(url).path == "/data/shop.db"


def test_file_path_is_decoded() -> None:
    """A blank in a path is written as %20."""
    assert parse("file:///data/my%20orders").path == "/data/my orders"


@pytest.mark.parametrize(
    "url",
    [
        "elasticsearch+http://elastic:s3cret@localhost:9200/orders",
        "elasticsearch+https://elastic:s3cret/with/slashes@localhost:9200/orders",
        "elasticsearch+https://elastic:s3cret?and#more@localhost:9200/orders",
        "s3://key:s3cret@bucket/prefix",
        "postgresql://user:s3cret@localhost/shop?table=orders",
        "postgres://user:s3cret@localhost/shop?table=orders",
        "postgresql://user:12/s3cret@localhost/shop?table=orders",
        "https://elastic:s3cret@localhost:9200/orders",
        "file://user:s3cret@localhost/data",
    ],
)
def test_url_with_a_password_is_refused_without_repeating_it(url: str) -> None:
    """A password in a URL is refused in one line that names variables to use, and not the password."""
    with pytest.raises(UsageError) as caught:
        parse(url)
    message = str(caught.value)
    assert "s3cret" not in message
    assert "\n" not in message
    assert "AIRFLOW_CONN_" in message


def test_postgres_url_names_server_and_database() -> None:
    """Both schemes are understood, the database's name is decoded, and a condition may hold any sign."""
    location = parse("postgres://db.example:5433/my%20shop?table=orders&where=mail='a:b@c'")
    assert (location.scheme, location.host, location.path) == ("postgresql", "db.example:5433", "my shop")
    assert location.parameters == {"table": "orders", "where": "mail='a:b@c'"}
    assert parse("postgresql://[::1]/shop").host == "[::1]"


def test_refused_postgres_password_names_the_variables() -> None:
    """Who typed a password for PostgreSQL reads where libpq looks for it instead."""
    with pytest.raises(UsageError, match="PGUSER and PGPASSWORD"):
        parse("postgresql://user:s3cret@localhost/shop")


def test_refused_elasticsearch_password_names_the_variables() -> None:
    """Who typed a password for Elasticsearch reads which variables hold it instead."""
    with pytest.raises(UsageError, match="BATCHKIT_ELASTICSEARCH_API_KEY"):
        parse("elasticsearch+http://elastic:s3cret@localhost:9200/orders")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("orders", "cannot tell what 'orders' is"),
        ("http://localhost:9200/orders", "elasticsearch\\+http://host:port/index"),
        ("mysql://localhost/shop?table=orders", "not supported by this version"),
        ("postgresql://localhost:port/shop?table=orders", "not a port number"),
        ("postgresql://localhost:5432?table=orders", "must name host and database"),
        ("postgresql:///shop?table=orders", "must name host and database"),
        ("postgresql://localhost/shop?table=orders&sslmode=disable", "no parameter 'sslmode'"),
        ("elasticsearch+http://localhost/orders", "must name host and port"),
        ("elasticsearch+http://localhost:port/orders", "not a port number"),
        ("elasticsearch+http://localhost:9200/", "names no index"),
        ("elasticsearch+http://localhost:9200/orders?api_key=abc", "no parameter 'api_key'"),
        ("elasticsearch+http://localhost:9200/orders?conn_id=", "once, with a value"),
        ("s3:///orders", "names no bucket"),
        ("file://data/orders", "file:///data/orders"),
        ("file:///", "names no path"),
        ("file:///data/a#b", "write # as %23"),
    ],
)
def test_mistaken_url_is_refused_in_one_line(url: str, says: str) -> None:
    """Each mistake is named, with the form that was meant, in one line."""
    with pytest.raises(UsageError, match=says) as caught:
        parse(url)
    assert "\n" not in str(caught.value)


def test_an_elasticsearch_url_may_name_several_hosts() -> None:
    """Hosts of one cluster stand with commas between them; each needs its port."""
    location = parse("elasticsearch+https://a.example:9200,[::1]:9201/orders")
    assert location.host == "a.example:9200,[::1]:9201"
    with pytest.raises(UsageError, match="must name host and port"):
        parse("elasticsearch+http://a.example:9200,b.example/orders")
