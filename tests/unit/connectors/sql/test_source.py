"""The SQL source: its settings, its refusals, and what it says of itself."""

from __future__ import annotations

import base64
import dataclasses
import logging
import sqlite3
import traceback
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from airflow_batchkit.connectors.sql import SqlSource
from airflow_batchkit.engine.exceptions import OrderError, PermanentError, TransientError, UsageError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.engine.types import Record, Sizing, UnreadableRecord
from airflow_batchkit.testing.doubles import FakeConnections

if TYPE_CHECKING:
    from pathlib import Path

SIZING = Sizing(batch_records=None, batch_bytes=1024)
ORDERS = SqlSource(conn_id="shop", table="orders")


class Shop:
    """A database file, and how the source reaches it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *statements: str) -> None:
        database = sqlite3.connect(self.path)
        for statement in statements:
            database.execute(statement)
        database.commit()
        database.close()

    def context(self, **changes: Any) -> OpenContext:
        connections = FakeConnections({"shop": lambda: sqlite3.connect(self.path)})
        context = OpenContext(
            connections=connections, timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC)
        )
        return dataclasses.replace(context, **changes)

    def ids(self, source: SqlSource, **changes: Any) -> list[str]:
        opened = source.open(self.context(**changes))
        return [record.id for page in opened.read(0, None, SIZING) for record in page.records]

    def records(self, source: SqlSource) -> list[Record]:
        opened = source.open(self.context())
        return [record for page in opened.read(0, None, SIZING) for record in page.records]

    def bodies(self, source: SqlSource) -> list[bytes]:
        return [bytes(record.body) for record in self.records(source)]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Make a database with three orders."""
    shop = Shop(tmp_path / "shop.db")
    shop.run(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, day TEXT NOT NULL, amount, UNIQUE (day, id))",
        "INSERT INTO orders VALUES (1, 'mon', 1.5), (2, 'tue', 12345678901234567), (3, 'tue', x'00ff')",
    )
    return shop


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"table": ""}, "must name a table"),
        ({"table": "t", "key": "id"}, "must be a list of columns, not a text"),
        ({"table": "t", "columns": ["a", "a"]}, "names a column twice"),
        ({"table": "t", "columns": []}, "must name a column"),
        ({"table": "t", "where": " "}, "condition is empty"),
        ({"table": "t", "where": "day = CURRENT_DATE"}, "something else on each page"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    """What can never work is refused when the DAG is written."""
    with pytest.raises(UsageError, match=message):
        SqlSource(**settings)


def test_templates_are_checked_after_rendering() -> None:
    """A condition that still holds its template is left alone; what it renders to is checked."""
    source = SqlSource(table="orders", where="{{ params.condition }}")
    with pytest.raises(UsageError, match="condition is empty"):
        dataclasses.replace(source, where="")


def test_columns_are_chosen_and_ordered(shop: Shop) -> None:
    """Records hold the chosen columns in the chosen order; the key need not be among them."""
    assert shop.bodies(dataclasses.replace(ORDERS, columns=("amount", "day"))) == [
        b'{"amount":1.5,"day":"mon"}',
        b'{"amount":12345678901234567,"day":"tue"}',
        b'{"amount":"AP8=","day":"tue"}',
    ]
    assert shop.ids(dataclasses.replace(ORDERS, columns=("amount",))) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("start_at", "key", "ids"),
    [
        ("2", (), ["2", "3"]),
        ("2.5", (), ["3"]),
        ("[2]", (), ["2", "3"]),
        ("tue", ("day", "id"), ['["tue",2]', '["tue",3]']),
        ('["tue", 3]', ("day", "id"), ['["tue",3]']),
        ('["tue", "3"]', ("day", "id"), ['["tue",3]']),
        ("zzz", ("day", "id"), []),
    ],
)
def test_partial_run_starts_at_a_key(shop: Shop, start_at: str, key: tuple[str, ...], ids: list[str]) -> None:
    """It begins with the first row at or behind the given values, and its total counts only the rest."""
    source = dataclasses.replace(ORDERS, key=key)
    assert shop.ids(source, start_at=start_at) == ids
    total = source.open(shop.context(start_at=start_at)).total
    assert total is not None
    assert total.records == len(ids)


@pytest.mark.parametrize(
    "start_at", ["monday", "[1, 2]", "[]", "[1", "[null]", '[{"color": 1}]', '[{"decimal": "x"}]']
)
def test_start_must_fit_the_key(shop: Shop, start_at: str) -> None:
    """A value that the key cannot have would silently match nothing, or all: it is refused."""
    with pytest.raises(UsageError, match="start_at"):
        ORDERS.open(shop.context(start_at=start_at))


def test_null_in_the_key_is_refused(shop: Shop) -> None:
    """Rows with NULL in their key would be lost behind the first page: they must be left out expressly."""
    shop.run(
        "CREATE TABLE codes (code TEXT PRIMARY KEY, v)",
        "INSERT INTO codes VALUES ('a', 1), (NULL, 2)",
    )
    codes = SqlSource(conn_id="shop", table="codes")
    with pytest.raises(UsageError, match=r'NULL in its key .*"code".*where='):
        codes.open(shop.context())
    assert shop.ids(dataclasses.replace(codes, where="code IS NOT NULL")) == ["a"]


def test_null_that_appears_later_fails_the_run(shop: Shop) -> None:
    """A row without a key that is inserted while the run goes on is noticed when it is read."""
    shop.run("CREATE TABLE codes (code TEXT PRIMARY KEY, v)", "INSERT INTO codes VALUES ('a', 1)")
    opened = SqlSource(conn_id="shop", table="codes").open(shop.context())
    shop.run("INSERT INTO codes VALUES (NULL, 2)")
    with pytest.raises(OrderError, match="NULL"):
        list(opened.read(0, None, SIZING))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("ALTER TABLE orders ADD COLUMN note TEXT", {"schema", "query"}),
        ({"where": "id > 1"}, {"query"}),
        ({"columns": ("id",)}, {"query"}),
        ({"descending": ("id",)}, {"sort"}),
        ({"key": ("day", "id")}, {"sort"}),
    ],
)
def test_fingerprints_name_what_changed(shop: Shop, change: str | dict[str, Any], names: set[str]) -> None:
    """A cursor is not resumed over another condition, order or table: the refusal names which of them."""
    before = ORDERS.open(shop.context()).fingerprints
    source = ORDERS
    if isinstance(change, str):
        shop.run(change)
    else:
        source = dataclasses.replace(ORDERS, **change)
    after = source.open(shop.context()).fingerprints
    assert {name for name in before if before[name] != after[name]} == names


def test_another_database_is_another_source(shop: Shop, tmp_path: Path) -> None:
    """The same table in another file has another fingerprint."""
    other = Shop(tmp_path / "other.db")
    other.path.write_bytes(shop.path.read_bytes())
    first, second = (ORDERS.open(each.context()).fingerprints for each in (shop, other))
    assert {name for name in first if first[name] != second[name]} == {"source"}


def test_rows_are_counted_once_in_a_run(shop: Shop) -> None:
    """The count rides in the checkpoint, so that the next leg does not strain the database again."""
    state = msgspec.json.decode(msgspec.json.encode(ORDERS.open(shop.context()).state))
    shop.run("DELETE FROM orders WHERE id = 1")
    total = ORDERS.open(shop.context(state=state)).total
    assert total is not None
    assert total.records == 3


def test_count_that_takes_too_long_is_left_out(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """A total that cannot be had in time is unknown, which the log says; the run goes on."""
    slow = "id > (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n)"
    opened = dataclasses.replace(ORDERS, where=slow).open(
        shop.context(timeouts=Timeouts(request=timedelta(seconds=0.05)))
    )
    assert opened.total is None
    assert "number of rows stays unknown" in caplog.text


def test_missing_index_is_said(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """A key order that no index serves is warned of: each page would sort the whole table."""
    shop.run("CREATE TABLE log (id INTEGER PRIMARY KEY, at TEXT NOT NULL)")
    with caplog.at_level(logging.WARNING, logger="airflow_batchkit"):
        SqlSource(conn_id="shop", table="log", key=("at", "id")).open(shop.context())
    assert 'no index of table log serves ORDER BY "log"."at", "log"."id"' in caplog.text


def test_row_that_json_cannot_hold_is_given_up_alone(shop: Shop) -> None:
    """An infinity costs its row alone, of which the rest is kept; the rows around it are read."""
    shop.run("INSERT INTO orders VALUES (4, 'wed', 9e999), (5, 'thu', 1)")
    found = shop.records(ORDERS)
    assert [record.id for record in found] == ["1", "2", "3", "4", "5"]
    unreadable = found[3]
    assert isinstance(unreadable, UnreadableRecord)
    assert "field 'amount' holds NaN or an infinity" in unreadable.message
    assert "where=" in unreadable.message
    assert msgspec.json.decode(unreadable.body) == {
        "readable": {"id": 4, "day": "wed"},
        "unreadable": {"amount": {"python": "inf"}},
    }
    assert [type(record) for record in found].count(Record) == 4


def test_undecodable_text_is_given_up_with_all_its_bytes(shop: Shop) -> None:
    """Text that is not UTF-8 costs its row alone; its bytes are kept, and no message shows them."""
    shop.run("INSERT INTO orders VALUES (4, 'wed', CAST(X'736563726574FF' AS TEXT)), (5, 'thü', 'ok')")
    found = shop.records(ORDERS)
    assert bytes(found[4].body) == '{"id":5,"day":"thü","amount":"ok"}'.encode()
    unreadable = found[3]
    assert isinstance(unreadable, UnreadableRecord)
    assert "field 'amount' holds text that is not UTF-8" in unreadable.message
    assert "secret" not in unreadable.message
    kept = msgspec.json.decode(unreadable.body)
    assert kept["readable"] == {"id": 4, "day": "wed"}
    assert base64.b64decode(kept["unreadable"]["amount"]["base64"]) == b"secret\xff"


def test_pages_of_unreadable_rows_are_resumed_like_others(shop: Shop) -> None:
    """The cursor after an unreadable row goes on behind it, and every page is read once."""
    shop.run(
        "CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT)",
        "INSERT INTO texts WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50) "
        "SELECT i, iif(i % 7 = 0, CAST(X'FF' AS TEXT), 'fine') FROM n",
    )
    opened = SqlSource(conn_id="shop", table="texts").open(shop.context())
    small = dataclasses.replace(SIZING, page_records=4)
    seen: list[Record] = []
    after = None
    while page := next(iter(opened.read(0, after, small)), None):
        assert page.cursor_at is not None
        seen += page.records[:3]
        after = msgspec.json.decode(msgspec.json.encode(page.cursor_at(min(3, len(page.records)) - 1)))
    assert [record.id for record in seen] == [str(number) for number in range(1, 51)]
    assert [record.id for record in seen if isinstance(record, UnreadableRecord)] == [
        str(number) for number in range(7, 51, 7)
    ]


def test_a_key_that_cannot_be_read_fails_the_run(shop: Shop) -> None:
    """Nobody could say which row was given up: the message names the table, and the key before it."""
    shop.run(
        "CREATE TABLE codes (code TEXT PRIMARY KEY NOT NULL, v)",
        "INSERT INTO codes VALUES ('a', 1), (CAST(X'736563726574FF' AS TEXT), 2)",
    )
    codes = SqlSource(conn_id="shop", table="codes")
    for source in (codes, dataclasses.replace(codes, columns=("v",))):
        with pytest.raises(
            PermanentError, match="the row after a of table 'codes' cannot be named: its key is text"
        ) as caught:
            shop.ids(source)
        assert "secret" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(PermanentError, match="the first row of table 'codes'"):
        shop.ids(dataclasses.replace(codes, where="v = 2"))


def test_closed_source_reads_no_more(shop: Shop) -> None:
    """After close() neither a new reader nor one that waits between two pages goes on."""
    opened = ORDERS.open(shop.context())
    reader = iter(opened.read(0, None, dataclasses.replace(SIZING, page_records=1)))
    next(reader)
    opened.close()
    with pytest.raises(TransientError, match="closed"):
        next(reader)
    with pytest.raises(TransientError, match="closed"):
        next(iter(opened.read(0, None, SIZING)))


def test_pages_adapt_to_the_rows_size(shop: Shop) -> None:
    """The first page is careful, the next aim at the wanted bytes; no page holds many fat rows."""
    shop.run(
        "CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT)",
        "INSERT INTO texts WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000) "
        "SELECT i, printf('%.*c', iif(i = 700, 40000, 90), 'x') FROM n",
    )
    opened = SqlSource(conn_id="shop", table="texts").open(shop.context())
    pages = list(opened.read(0, None, dataclasses.replace(SIZING, page_bytes=20_000)))
    assert sum(len(page.records) for page in pages) == 2000
    assert len(pages[0].records) == 100
    assert max(page.nbytes for page in pages) < 20_000 + 40_100
    assert len(pages) < 35


def test_odd_names_are_read(shop: Shop) -> None:
    """Tables and columns with quotes, spaces and keywords in their names are names like any other."""
    shop.run(
        'CREATE TABLE "or""der s" ("select" TEXT PRIMARY KEY NOT NULL, "a b" INT)',
        'INSERT INTO "or""der s" VALUES (\'x\', 1)',
    )
    source = SqlSource(conn_id="shop", table='or"der s')
    assert shop.bodies(source) == [b'{"select":"x","a b":1}']
    assert source.open(shop.context()).partitions == ("or_der_s",)


def test_index_with_its_own_collation_decides_the_order(shop: Shop) -> None:
    """Keys that are unique only in another letter case are told apart as the unique index does."""
    shop.run(
        "CREATE TABLE names (name TEXT COLLATE NOCASE NOT NULL)",
        "CREATE UNIQUE INDEX exact ON names (name COLLATE BINARY)",
        "INSERT INTO names VALUES ('a'), ('A'), ('b'), ('B')",
    )
    source = SqlSource(conn_id="shop", table="names", key=("name",))
    opened = source.open(shop.context())
    pages = opened.read(0, None, dataclasses.replace(SIZING, page_records=1))
    assert [record.id for page in pages for record in page.records] == ["A", "B", "a", "b"]
