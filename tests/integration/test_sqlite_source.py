"""The SQL source on real SQLite files: killed and resumed, changed meanwhile, locked, large."""

from __future__ import annotations

import gc
import json
import sqlite3
import threading
import tracemalloc
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.sql import SqlSource
from airflow_batchkit.engine.exceptions import CannotResumeError, StoppedError, TransientError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.source import OpenContext, OpenSource
from airflow_batchkit.engine.types import Sizing
from airflow_batchkit.testing.doubles import FakeConnections
from tests.support.sqlite_reading import ORDERS, SqliteShop
from tests.support.table_exports import TableExport, id_of

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 3000


@pytest.fixture
def shop(tmp_path: Path) -> SqliteShop:
    """Make a database in WAL mode, as a live one is, with rows over seven days."""
    return SqliteShop(tmp_path / "shop.db", ROWS)


def opened(shop: SqliteShop, source: SqlSource = ORDERS, *, patience: float = 5.0) -> OpenSource:
    """Open the source."""
    return source.open(
        OpenContext(
            connections=shop.connections(patience=patience),
            timeouts=Timeouts(),
            now=datetime(2026, 1, 1, tzinfo=UTC),
        )
    )


@pytest.mark.parametrize("descending", [(), ("day", "id"), ("day",)])
def test_killed_export_resumes_without_loss(shop: SqliteShop, descending: tuple[str, ...]) -> None:
    """An export whose writes fail again and again ends with each row once, in the key's order."""
    export = TableExport(replace(ORDERS, descending=descending), shop.connections())
    for write in (3, 5, 6, 9):
        export.target.script.fail("write", TransientError("the target is gone"), at=write)
    assert export.to_the_end() > 2
    rows = sorted(shop.orders(), key=lambda row: -row["id"] if "id" in descending else row["id"])
    export.check(sorted(rows, key=lambda row: row["day"], reverse="day" in descending))


@pytest.mark.fault("changing-source", at="sqlite")
def test_rows_that_change_meanwhile(shop: SqliteShop) -> None:
    """Rows inserted behind the cursor are read, deleted ones are not; no other comes twice or is lost."""
    reader = iter(opened(shop).read(0, None, Sizing(batch_records=None, batch_bytes=1024, page_records=500)))
    found = list(next(reader).records)
    before = shop.orders()
    shop.run(
        "INSERT INTO orders VALUES (9001, '2025-12-31', 1, 'before the cursor')",
        "INSERT INTO orders VALUES (9002, '2026-02-01', 1, 'behind the cursor')",
        "DELETE FROM orders WHERE day = '2026-01-05' AND id % 2 = 0",
        "UPDATE orders SET note = 'changed behind the cursor' WHERE day = '2026-01-06'",
    )
    found += [record for page in reader for record in page.records]
    now = [row for row in shop.orders() if row["id"] != 9001]
    gone = {id_of(row) for row in before} - {id_of(row) for row in now}
    assert len(gone) > 100
    assert [json.loads(record.body) for record in found] == now
    assert [record.id for record in found] == [id_of(row) for row in now]


def test_no_transaction_stays_open_between_pages(shop: SqliteShop) -> None:
    """While the sink takes its time, the database can truncate its WAL: no page pins it."""
    reader = iter(opened(shop).read(0, None, Sizing(batch_records=None, batch_bytes=1024, page_records=10)))
    next(reader)
    with closing(sqlite3.connect(shop.path)) as database:
        database.execute("UPDATE orders SET amount = 0 WHERE id = 1")
        database.commit()
        assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    assert next(reader).records


@pytest.mark.fault("checkpoint-unfit", at="sqlite")
def test_changed_table_is_not_resumed(shop: SqliteShop) -> None:
    """A table that got another column since the checkpoint is refused, and the refusal names the schema."""
    export = TableExport(ORDERS, shop.connections())
    export.target.script.fail("write", TransientError("the target is gone"), at=3)
    with pytest.raises((StoppedError, TransientError)):
        export.leg()
    shop.run("ALTER TABLE orders ADD COLUMN note2 TEXT")
    with pytest.raises(CannotResumeError, match="schema"):
        export.leg()
    export.check_nothing_published()


def test_close_ends_a_reader_in_a_long_query(shop: SqliteShop) -> None:
    """A reader that hangs in a query is ended by close(), within moments."""
    running = threading.Event()

    def never(_amount: float) -> int:
        running.set()
        threading.Event().wait(0.01)
        return 0

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(shop.path)
        connection.create_function("never", 1, never)
        return connection

    source = replace(ORDERS, where="never(amount)").open(
        OpenContext(
            connections=FakeConnections({"shop": connect}),
            timeouts=Timeouts(),
            now=datetime(2026, 1, 1, tzinfo=UTC),
            state={"total": ROWS},
        )
    )
    raised: list[BaseException] = []

    def read() -> None:
        try:
            list(source.read(0, None, Sizing(batch_records=None, batch_bytes=1024)))
        except TransientError as error:
            raised.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert running.wait(10)
    source.close()
    reader.join(10)
    assert not reader.is_alive()
    assert "closed" in str(raised[0])


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """Reading ten times as many rows takes no more memory at its peak."""

    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.db"
        source = opened(SqliteShop(path, rows))
        gc.collect()
        tracemalloc.start()
        pages = source.read(0, None, Sizing(batch_records=None, batch_bytes=1024, page_bytes=100_000))
        count = sum(len(page.records) for page in pages)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == rows
        return highest

    assert peak(30_000) < peak(3_000) * 1.2
