"""Every PostgreSQL type becomes the JSON that docs/sql-source.md says, and reads back as the same value."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer
from tests.support.postgres_reading import Shop, table

pytestmark = pytest.mark.postgres

PREPARED = (
    "CREATE TYPE mood AS ENUM ('sad', 'happy')",
    "CREATE TYPE place AS (town text, at numeric, tags text[])",
    "CREATE DOMAIN seal AS bytea",
    "CREATE DOMAIN positive AS bigint CHECK (VALUE > 0)",
)
# Type, a value as SQL writes it, and the JSON that it becomes: the documentation's own table, and what does
# not fit into it.
PAGE = Path(__file__).resolve().parents[2] / "docs" / "sql-source.md"
TYPES = [
    *re.findall(r"^\| `(.+?)` \| `(.+?)` \| `(.+?)` \|$", PAGE.read_text(), re.MULTILINE),
    ("numeric", "1e400", "1" + "0" * 400),
    ("double precision", "'NaN'", '"NaN"'),
    ("text", "E'\\n\u2028'", '"\\n\u2028"'),
    ("varchar(9)", "'a'", '"a"'),
    ("json", """E'{"n":\\n 1.0}'""", '{"n":1.0}'),
    ("numeric[]", "'{}'", "[]"),
    ("macaddr", "'08:00:2B:01:02:03'", '"08:00:2b:01:02:03"'),
    ("xml", "'<a>b</a>'", '"<a>b</a>"'),
]
DOCUMENTED = 45


@pytest.fixture
def shop(postgres_server: PostgresServer, database: str) -> Shop:
    """Make a database whose every setting for output is another than ours."""
    shop = Shop(postgres_server, database)
    for setting in (
        "TimeZone = 'Asia/Tokyo'",
        "DateStyle = 'German, DMY'",
        "IntervalStyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "extra_float_digits = -15",
    ):
        shop.run(f"ALTER DATABASE {database} SET {setting}")
    shop.run(*PREPARED)
    return shop


def test_each_type_becomes_the_documented_json(shop: Shop) -> None:
    """Every digit and every meaning is kept, whatever the server, the database or the role have set."""
    assert len(TYPES) > DOCUMENTED
    columns = ", ".join(f"c{at} {kind}" for at, (kind, _, _) in enumerate(TYPES))
    values = ", ".join(value for _, value, _ in TYPES)
    shop.run(f"CREATE TABLE t (id int PRIMARY KEY, {columns})", f"INSERT INTO t VALUES (1, {values})")  # noqa: S608  # a test's own text
    for at, (kind, value, wanted) in enumerate(TYPES):
        (body,) = shop.bodies(table("t", columns=(f"c{at}",)))
        assert body.decode() == f'{{"c{at}":{wanted}}}', f"{kind} {value}"


def test_every_line_makes_its_row_again(shop: Shop) -> None:
    """json_populate_record() reads a line back as the very row that it came from, but for base64."""
    kinds = [(kind, value) for kind, value, _ in TYPES if kind not in {"bytea", "json", "xml", "point"}]
    columns = ", ".join(f"c{at} {kind}" for at, (kind, _) in enumerate(kinds))
    values = ", ".join(value for _, value in kinds)
    shop.run(f"CREATE TABLE t (id int PRIMARY KEY, {columns})", f"INSERT INTO t VALUES (1, {values})")  # noqa: S608  # a test's own text
    (body,) = shop.bodies(table("t"))
    text = body.decode().replace("'", "''")
    again = shop.run(
        "SET lc_monetary = 'C'",
        "CREATE TABLE again (LIKE t)",
        f"INSERT INTO again SELECT * FROM json_populate_record(NULL::t, '{text}')",  # noqa: S608  # a test's own text
        "SELECT count(*) FROM t JOIN again ON t IS NOT DISTINCT FROM again",
    )
    assert again == [(1,)]


def test_bytes_are_base64_on_one_line(shop: Shop) -> None:
    """A bytea column, also behind a domain, is base64 without the line ends that PostgreSQL puts in."""
    shop.run(
        "CREATE TABLE t (id int PRIMARY KEY, b bytea, s seal)",
        r"INSERT INTO t VALUES (1, decode(repeat('00ff', 100), 'hex'), '\x01'), (2, '', NULL)",
    )
    long, empty = shop.bodies(table("t"))
    assert long == b'{"id":1,"b":"' + b"AP8A/wD/" * 33 + b'AP8=","s":"AQ=="}'
    assert empty == b'{"id":2,"b":"","s":null}'


def test_text_in_another_encoding_comes_as_unicode(postgres_server: PostgresServer) -> None:
    """A LATIN1 database gives UTF-8, names included."""
    name = postgres_server.new_database(encoding="LATIN1", lc_collate="C", lc_ctype="C")
    shop = Shop(postgres_server, name)
    shop.run('CREATE TABLE t ("né" text PRIMARY KEY)', "INSERT INTO t VALUES ('café')")
    assert shop.bodies(table("t")) == ['{"né":"café"}'.encode()]
    postgres_server.drop_database(name)
