"""The SQL source on real SQLite files: killed and resumed, changed meanwhile, locked, large."""

from __future__ import annotations

import gc
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
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, Timeouts
from airflow_batchkit.engine.source import OpenContext, OpenSource
from airflow_batchkit.engine.types import Sizing
from airflow_batchkit.testing.doubles import FakeConnections, MemorySink, MemoryStore, MemoryTarget

if TYPE_CHECKING:
    from pathlib import Path

ORDERS = SqlSource(conn_id="shop", table="orders", key=("day", "id"))
RUN = RunIdentity(run="run-1")
ROWS = 3000
FILL = """
    INSERT INTO orders
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?)
    SELECT i, date('2026-01-01', '+' || (i * i % 7) || ' days'), i / 8.0, printf('%.*c', 100, 'x') FROM n
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Make a database in WAL mode, as a live one is, with rows over seven days."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, day TEXT NOT NULL, amount REAL, note TEXT)"
        )
        database.execute("CREATE UNIQUE INDEX by_day ON orders (day, id)")
        database.execute(FILL, (ROWS,))
    return path


def change(shop: Path, *statements: str) -> None:
    """Change the database as another process would."""
    with closing(sqlite3.connect(shop)) as database, database:
        for statement in statements:
            database.execute(statement)


def ids_in_order(shop: Path) -> list[str]:
    """Return what the source should give."""
    with closing(sqlite3.connect(shop)) as database:
        rows = database.execute("SELECT day, id FROM orders ORDER BY day, id").fetchall()
    return [f'["{day}",{identity}]' for day, identity in rows]


def connections(shop: Path, *, patience: float = 5.0) -> FakeConnections:
    """Make read-only connections, with sqlite3's own check that they stay in their thread."""
    return FakeConnections(
        {"shop": lambda: sqlite3.connect(f"file:{shop}?mode=ro", uri=True, timeout=patience)}
    )


def opened(shop: Path, source: SqlSource = ORDERS, *, patience: float = 5.0) -> OpenSource:
    """Open the source."""
    return source.open(
        OpenContext(
            connections=connections(shop, patience=patience),
            timeouts=Timeouts(),
            now=datetime(2026, 1, 1, tzinfo=UTC),
        )
    )


class Export:
    """One run of a job, leg after leg, into memory."""

    def __init__(self, shop: Path, source: SqlSource = ORDERS) -> None:
        self.shop = shop
        self.target = MemoryTarget()
        self.store = MemoryStore()
        self.job = Job(
            name="export",
            source=source,
            sink=MemorySink(target=self.target),
            batch=BatchPolicy(max_records=250),
            batch_retry=BatchRetry(max_tries=1),
        )

    def leg(self, job: Job | None = None) -> None:
        Pipeline(
            job or self.job,
            identity=RUN,
            store=self.store,
            key="export",
            connections=connections(self.shop),
            max_stuck_legs=100,
        ).run()

    def published_ids(self) -> list[str]:
        published = self.target.published
        return [] if published is None else published.ids


@pytest.mark.parametrize("descending", [(), ("day", "id"), ("day",)])
def test_killed_export_resumes_without_loss(shop: Path, descending: tuple[str, ...]) -> None:
    """An export whose writes fail again and again ends with each row once, in the key's order."""
    export = Export(shop, replace(ORDERS, descending=descending))
    for write in (3, 5, 6, 9):
        export.target.script.fail("write", TransientError("the target is gone"), at=write)
    legs = 1
    while export.target.published is None:
        assert legs < 10
        try:
            export.leg()
        except (StoppedError, TransientError):
            legs += 1
    assert legs > 2
    assert sorted(export.published_ids()) == sorted(ids_in_order(shop))
    if not descending:
        assert export.published_ids() == ids_in_order(shop)


def test_rows_that_change_meanwhile(shop: Path) -> None:
    """Rows inserted behind the cursor are read, deleted ones are not; no other comes twice or is lost."""
    reader = iter(opened(shop).read(0, None, Sizing(batch_records=None, batch_bytes=1024, page_records=500)))
    found = [record.id for record in next(reader).records]
    first = ids_in_order(shop)
    change(
        shop,
        "INSERT INTO orders VALUES (9001, '2025-12-31', 1, 'before the cursor')",
        "INSERT INTO orders VALUES (9002, '2026-02-01', 1, 'behind the cursor')",
        "DELETE FROM orders WHERE day = '2026-01-05' AND id % 2 = 0",
    )
    found += [record.id for page in reader for record in page.records]
    assert len(found) == len(set(found))
    there_throughout = set(first) & set(ids_in_order(shop))
    assert there_throughout | {'["2026-02-01",9002]'} == set(found)


def test_no_transaction_stays_open_between_pages(shop: Path) -> None:
    """While the sink takes its time, the database can truncate its WAL: no page pins it."""
    reader = iter(opened(shop).read(0, None, Sizing(batch_records=None, batch_bytes=1024, page_records=10)))
    next(reader)
    with closing(sqlite3.connect(shop)) as database:
        database.execute("UPDATE orders SET amount = 0 WHERE id = 1")
        database.commit()
        assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    assert next(reader).records


def test_changed_table_is_not_resumed(shop: Path) -> None:
    """A table that got another column since the checkpoint is refused, and the refusal names the schema."""
    export = Export(shop)
    export.target.script.fail("write", TransientError("the target is gone"), at=3)
    with pytest.raises((StoppedError, TransientError)):
        export.leg()
    change(shop, "ALTER TABLE orders ADD COLUMN note2 TEXT")
    with pytest.raises(CannotResumeError, match="schema"):
        export.leg()


def test_locked_database_is_tried_again(tmp_path: Path) -> None:
    """While another process holds the file, reading fails in a way that the engine tries again."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, day TEXT NOT NULL)")
        database.executemany("INSERT INTO orders VALUES (?, 'mon')", [(number,) for number in range(50)])
    source = opened(path, SqlSource(conn_id="shop", table="orders"), patience=0)
    sizing = Sizing(batch_records=None, batch_bytes=1024, page_records=20)
    reader = iter(source.read(0, None, sizing))
    page = next(reader)
    assert page.cursor_at is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientError, match="locked"):
            next(reader)
        writer.execute("ROLLBACK")
    rest = [record.id for page in source.read(0, page.cursor_at(19), sizing) for record in page.records]
    assert rest == [str(number) for number in range(20, 50)]


def test_close_ends_a_reader_in_a_long_query(shop: Path) -> None:
    """A reader that hangs in a query is ended by close(), within moments."""
    running = threading.Event()

    def never(_amount: float) -> int:
        running.set()
        threading.Event().wait(0.01)
        return 0

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(shop)
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
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(
                "CREATE TABLE orders (id INTEGER PRIMARY KEY, day TEXT NOT NULL, amount REAL, note TEXT)"
            )
            database.execute("CREATE UNIQUE INDEX by_day ON orders (day, id)")
            database.execute(FILL, (rows,))
        source = opened(path)
        gc.collect()
        tracemalloc.start()
        pages = source.read(0, None, Sizing(batch_records=None, batch_bytes=1024, page_bytes=100_000))
        count = sum(len(page.records) for page in pages)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == rows
        return highest

    assert peak(30_000) < peak(3_000) * 1.2
