"""Keys of every kind on a real PostgreSQL: the database compares, pages join, resumed anywhere."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from airflow_batchkit.engine.exceptions import OrderError, UsageError
from tests.support.postgres_reading import LARGE_PAGES, SMALL_PAGES, Shop, table

if TYPE_CHECKING:
    from airflow_batchkit.connectors.sql import SqlSource
    from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.postgres


@pytest.fixture
def shop(postgres_server: PostgresServer, database: str) -> Shop:
    """Make an empty database."""
    return Shop(postgres_server, database)


def check_whole(shop: Shop, source: SqlSource, wanted: list[tuple[Any, ...]]) -> None:
    """Read in small pages, in large ones, resumed after each row: always the rows in the server's order."""
    rows = [msgspec.json.encode(row) for row in wanted]

    def read(pages: Any) -> list[bytes]:
        return [
            msgspec.json.encode(list(msgspec.json.decode(record.body).values()))
            for page in pages
            for record in page.records
        ]

    assert read(shop.pages(source, LARGE_PAGES)) == rows
    pages = list(shop.pages(source, SMALL_PAGES))
    assert read(pages) == rows
    opened = shop.opened(source)
    position = 0
    for page in pages:
        for index in range(len(page.records)):
            position += 1
            assert page.cursor_at is not None
            cursor = msgspec.json.decode(msgspec.json.encode(page.cursor_at(index)))
            assert read(opened.read(0, cursor, LARGE_PAGES)) == rows[position:], cursor
    opened.close()


KEYS = {
    "bigint": "(9007199254740993), (-9223372036854775808), (9223372036854775807), (0), (-1)",
    "numeric": "('1.10'), ('1.1000001'), ('-1e300'), ('1e-300'), ('NaN'), ('Infinity'), ('-Infinity'), (0)",
    "double precision": "('-Infinity'), ('Infinity'), ('NaN'), (0.1), (1e300), (5e-324), (-0.1)",
    "text": "(''), ('a'), ('A'), ('é'), ('z'), ('a b'), ('%s'), ('$1'), ('''')",
    "varchar(20)": "('a'), ('b'), ('aa'), ('B')",
    "char(5)": "('ab'), ('abc'), ('b'), (' ')",
    "uuid": "('00000000-0000-0000-0000-000000000001'), ('ffffffff-ffff-ffff-ffff-ffffffffffff')",
    "timestamptz": "('infinity'), ('-infinity'), ('0044-03-15 BC'), ('2026-01-01 00:00:00.5+02'), "
    "('2026-01-01 00:00:00.55+02'), ('20000-01-01')",
    "timestamp": "('2026-01-01 00:00:00.000001'), ('2026-01-01'), ('infinity')",
    "date": "('infinity'), ('0044-03-15 BC'), ('2026-01-01'), ('12000-01-01')",
    "time": "('10:00'), ('10:00:00.5')",
    "interval": "('1 day'), ('25 hours'), ('1 mon'), ('-1 day')",
    "bytea": r"(''), ('\x00'), ('\x00ff'), ('\xff')",
    "boolean": "(true), (false)",
    "inet": "('10.0.0.1'), ('10.0.0.0/8'), ('::1')",
    "mood": "('sad'), ('happy'), ('ok')",
    "positive": "(1), (9007199254740993)",
}


@pytest.mark.parametrize("kind", KEYS)
def test_key_of_each_type(shop: Shop, kind: str) -> None:
    """Whatever the key's type, extreme values included, each row comes once in the server's order."""
    shop.run(
        "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
        "CREATE DOMAIN positive AS bigint CHECK (VALUE > 0)",
        f"CREATE TABLE t (n int GENERATED ALWAYS AS IDENTITY, k {kind} PRIMARY KEY)",
        f"INSERT INTO t (k) VALUES {KEYS[kind]}",  # noqa: S608  # a test's own text
    )
    for direction, descending in (("", ()), ("DESC", ("k",))):
        wanted = shop.run(f"SELECT n FROM t ORDER BY k {direction}")  # noqa: S608  # a test's own text
        check_whole(shop, table("t", columns=("n",), descending=descending), wanted)


@pytest.mark.parametrize("descending", [(), ("a",), ("b",), ("a", "b", "id")])
@pytest.mark.parametrize("sides", [{}, {"nulls_first": ("a",)}, {"nulls_last": ("a", "b")}])
def test_nullable_columns_in_a_key(
    shop: Shop, descending: tuple[str, ...], sides: dict[str, tuple[str, ...]]
) -> None:
    """Columns beside the unique one may hold NULL; it comes where the database or the user puts it."""
    rows = ", ".join(f"({a}, {b})" for a, b in itertools.product(("1", "2", "NULL"), repeat=2))
    shop.run(
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, b int)",
        f"INSERT INTO t (a, b) VALUES {rows}, {rows}",  # noqa: S608  # a test's own text
    )
    order = []
    for name in ("a", "b", "id"):
        item = f"{name} DESC" if name in descending else name
        if name in sides.get("nulls_first", ()):
            item += " NULLS FIRST"
        if name in sides.get("nulls_last", ()):
            item += " NULLS LAST"
        order.append(item)
    wanted = shop.run(f"SELECT id FROM t ORDER BY {', '.join(order)}")  # noqa: S608  # a test's own text
    source = table("t", columns=("id",), key=("a", "b", "id"), descending=descending, **sides)
    check_whole(shop, source, wanted)


def test_unique_index_over_nulls(shop: Shop) -> None:
    """NULL in the unique columns is refused, because rows may share it; not so with NULLS NOT DISTINCT."""
    shop.run("CREATE TABLE t (id int UNIQUE)", "INSERT INTO t VALUES (1), (NULL)")
    with pytest.raises(UsageError, match=r'holds rows with NULL in its key \("id"\)'):
        shop.opened(table("t", key=("id",)))
    assert shop.ids(table("t", key=("id",), where="id IS NOT NULL")) == ["1"]
    shop.run("CREATE TABLE u (a int, id int, UNIQUE NULLS NOT DISTINCT (a, id))")
    shop.run("INSERT INTO u VALUES (1, 1), (1, NULL), (NULL, 1), (NULL, NULL), (2, 2), (0, NULL)")
    check_whole(shop, table("u", key=("a", "id")), shop.run("SELECT a, id FROM u ORDER BY a, id"))


def test_collations_decide_the_order(shop: Shop) -> None:
    """The index's own collation orders the key, a nondeterministic one as well."""
    shop.run(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE COLLATION german (provider = icu, locale = 'de-DE-x-icu')",
        "CREATE TABLE t (n int GENERATED ALWAYS AS IDENTITY, k text COLLATE german PRIMARY KEY)",
        "INSERT INTO t (k) VALUES ('ä'), ('a'), ('b'), ('A'), ('z'), ('ß'), ('ss')",
        "CREATE TABLE u (n int, k text COLLATE ci, PRIMARY KEY (k, n))",
        "INSERT INTO u VALUES (3, 'a'), (1, 'A'), (2, 'b'), (5, 'B'), (4, 'b'), (6, 'a')",
        "CREATE TABLE v (n int GENERATED ALWAYS AS IDENTITY, k text COLLATE ci NOT NULL)",
        'CREATE UNIQUE INDEX exact ON v (k COLLATE "C")',
        "INSERT INTO v (k) VALUES ('a'), ('A'), ('b'), ('B')",
    )
    check_whole(shop, table("t", columns=("n",)), shop.run("SELECT n FROM t ORDER BY k"))
    check_whole(shop, table("u", columns=("n",)), shop.run("SELECT n FROM u ORDER BY k, n"))
    wanted = shop.run('SELECT n FROM v ORDER BY k COLLATE "C"')
    check_whole(shop, table("v", columns=("n",), key=("k",)), wanted)


@pytest.mark.parametrize(
    "index",
    [
        "CREATE INDEX i ON t (a)",
        "CREATE UNIQUE INDEX i ON t (a) WHERE b > 1",
        "CREATE UNIQUE INDEX i ON t ((a + 1))",
        "CREATE UNIQUE INDEX i ON t (b) INCLUDE (a)",
        "CREATE UNIQUE INDEX i ON t (a, b)",
    ],
)
def test_only_whole_unique_indexes_make_a_key(shop: Shop, index: str) -> None:
    """Partial ones, those on expressions or with the column beside the key only, say nothing of all rows."""
    shop.run("CREATE TABLE t (a int NOT NULL, b int NOT NULL)", index)
    with pytest.raises(UsageError, match="the columns a of table 't' have no unique index"):
        shop.opened(table("t", key=("a",)))


def test_invalid_index_makes_no_key(shop: Shop) -> None:
    """An index whose build failed is there, but not complete."""
    import psycopg

    shop.run("CREATE TABLE t (a int NOT NULL)", "INSERT INTO t VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        shop.run("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)")
    with pytest.raises(UsageError, match="no unique index"):
        shop.opened(table("t", key=("a",)))


def test_deferrable_key_counts(shop: Shop) -> None:
    """What is committed is unique, and nothing else is read."""
    shop.run(
        "CREATE TABLE t (a int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)", "INSERT INTO t VALUES (2), (1)"
    )
    assert shop.ids(table("t")) == ["1", "2"]


def test_partitioned_table_is_one_table(shop: Shop) -> None:
    """Its rows come in the order of its key, across its partitions."""
    shop.run(
        "CREATE TABLE t (day date, id int, PRIMARY KEY (day, id)) PARTITION BY RANGE (day)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
        "CREATE TABLE t2 PARTITION OF t DEFAULT",
        "INSERT INTO t SELECT date '2026-01-28' + i % 9, i FROM generate_series(1, 20) AS i",
    )
    check_whole(shop, table("t", columns=("id",)), shop.run("SELECT id FROM t ORDER BY day, id"))


def test_view_is_read_by_a_key_that_is_checked(shop: Shop) -> None:
    """A view needs a key; one that comes twice fails the run, also where a page ends between the two."""
    shop.run(
        "CREATE TABLE t (id int)",
        "INSERT INTO t SELECT generate_series(1, 10)",
        "CREATE VIEW v AS SELECT id, id * 2 AS double FROM t",
    )
    with pytest.raises(UsageError, match="has no primary key"):
        shop.opened(table("v"))
    check_whole(shop, table("v", key=("id",)), shop.run("SELECT * FROM v ORDER BY id"))
    for twice in (2, 3, 10):
        shop.run(f"INSERT INTO t VALUES ({twice})")  # noqa: S608  # a test's own text
        with pytest.raises(OrderError, match=f"the key {twice} comes twice in a row"):
            shop.ids(table("v", key=("id",)))
        shop.run("DELETE FROM t WHERE ctid IN (SELECT max(ctid) FROM t)")
    shop.run("INSERT INTO t VALUES (NULL)")
    assert shop.ids(table("v", key=("id",)))[-1] == "null"


def test_view_with_a_key_that_cannot_be_checked_is_refused(shop: Shop) -> None:
    """Where the database takes different texts for equal, the client could not see a key come twice."""
    shop.run(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE VIEW v AS SELECT 'a'::text COLLATE ci AS k, interval '1 day' AS i",
    )
    for name in ("k", "i"):
        with pytest.raises(UsageError, match=f"column '{name}' .* takes different texts for equal"):
            shop.opened(table("v", key=(name,)))


def test_parent_of_an_inherited_table_has_no_key_of_its_own(shop: Shop) -> None:
    """The parent's primary key does not hold for its children, whose rows are read with it."""
    shop.run("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE child () INHERITS (t)")
    shop.run("INSERT INTO t VALUES (1), (2)", "INSERT INTO child VALUES (2), (3)")
    with pytest.raises(OrderError, match="the key 2 comes twice"):
        shop.ids(table("t", key=("id",)))
    shop.run("DELETE FROM child WHERE id = 2")
    assert shop.ids(table("t", key=("id",))) == ["1", "2", "3"]


@pytest.mark.parametrize("name", ["Orders", 'o"x', "o'x", "o x", "o.x", "%s $1", "日次", "select"])
def test_odd_names_are_names_like_any_other(shop: Shop, name: str) -> None:
    """Tables, schemas and columns are meant exactly as the catalog spells them."""
    quoted = '"' + name.replace('"', '""') + '"'
    create = f"({quoted} int PRIMARY KEY, r int, row int)"
    shop.run(f"CREATE TABLE {quoted} {create}", f"INSERT INTO {quoted} VALUES (1, 2, 3), (2, 3, 4)")  # noqa: S608  # a test's own text
    wanted = [
        msgspec.json.encode({name: 1, "r": 2, "row": 3}),
        msgspec.json.encode({name: 2, "r": 3, "row": 4}),
    ]
    assert shop.bodies(table(name)) == wanted
    shop.run(f"CREATE SCHEMA {quoted}", f"ALTER TABLE {quoted} SET SCHEMA {quoted}")
    with pytest.raises(UsageError, match="there is no table"):
        shop.opened(table(name))
    assert shop.bodies(table(f"{name}.{name}", where=f"{quoted}.{quoted}.{quoted} % 2 IS NOT NULL")) == wanted


def test_columns_that_look_like_ours(shop: Shop) -> None:
    """A column named as an alias of our query orders the rows by itself, not by the alias."""
    shop.run(
        'CREATE TABLE t ("batchkit key 0" int PRIMARY KEY, "batchkit row" text)',
        "INSERT INTO t SELECT i, 'x' FROM generate_series(1, 12) AS i",
    )
    assert shop.ids(table("t")) == [str(number) for number in range(1, 13)]


@pytest.mark.parametrize(
    ("start_at", "ids"),
    [
        ("2026-01-02", ['["2026-01-02",2]', '["2026-01-03",3]']),
        ('["2026-01-02", 3]', ['["2026-01-03",3]']),
        ('["2026-01-03", "3"]', ['["2026-01-03",3]']),
    ],
)
def test_partial_run_starts_at_a_key(shop: Shop, start_at: str, ids: list[str]) -> None:
    """It begins at or behind the given values, and its total counts only the rest."""
    shop.run(
        "CREATE TABLE t (day date, id int, PRIMARY KEY (day, id))",
        "INSERT INTO t VALUES ('2026-01-01', 1), ('2026-01-02', 2), ('2026-01-03', 3)",
    )
    assert shop.ids(table("t"), start_at=start_at) == ids
    opened = shop.opened(table("t"), start_at=start_at)
    assert opened.total is not None
    assert opened.total.records == len(ids)
    opened.close()
    for wrong in ("monday", '["2026-01-02", "x"]'):
        with pytest.raises(UsageError, match="check where, and start_at") as caught:
            shop.opened(table("t"), start_at=wrong)
        assert "monday" not in str(caught.value)


def test_missing_index_is_said(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """A key order that no index serves is warned of, also while the table is small; one that is, is not."""
    shop.run("CREATE TABLE t (id int PRIMARY KEY, at int NOT NULL, UNIQUE (at, id))")
    with caplog.at_level(logging.WARNING, logger="airflow_batchkit"):
        shop.opened(table("t")).close()
        shop.opened(table("t", key=("at", "id"), descending=("at", "id"))).close()
        assert not caplog.text
        shop.opened(table("t", key=("at", "id"), descending=("at",))).close()
    assert "no index of table t serves ORDER BY" in caplog.text


def test_pages_seek_in_the_index(shop: Shop) -> None:
    """Each stage of a page is a seek by all its columns, also across NULLs and in mixed directions."""
    shop.run(
        "CREATE TABLE t (a int, b int NOT NULL, id int PRIMARY KEY)",
        "CREATE INDEX i ON t (a DESC NULLS LAST, b, id)",
        "INSERT INTO t SELECT i % 7, i % 11, i FROM generate_series(1, 20000) AS i",
        "ANALYZE t",
    )
    source = table("t", key=("a", "b", "id"), descending=("a",), nulls_last=("a",))
    opened = shop.opened(source)
    for predicate, parameters in opened._queries.keyset.after((3, 5, 700)):  # type: ignore[attr-defined]  # its own queries are looked at
        query = opened._queries.page(predicate, 100)  # type: ignore[attr-defined]  # see above
        with shop.server.connect(shop.database) as connection:
            from psycopg import RawCursor

            connection.execute("SET enable_sort = off; SET enable_bitmapscan = off")
            answer = RawCursor(connection).execute(
                f"EXPLAIN {query}".encode(), [str(value) for value in parameters]
            )
            plan = "\n".join(row[0] for row in answer.fetchall())
        assert "Index" in plan, plan
        assert "Index Cond" in plan, plan
        assert "Sort" not in plan, plan
        assert "Filter" not in plan, plan
    opened.close()
