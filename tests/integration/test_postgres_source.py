"""The SQL source on a real PostgreSQL: what it tells, what it leaves alone, how it goes on after faults."""

from __future__ import annotations

import gc
import signal
import threading
import tracemalloc
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.engine.exceptions import CannotResumeError, StoppedError, TransientError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, Timeouts
from airflow_batchkit.engine.types import Sizing
from airflow_batchkit.testing.doubles import MemorySink, MemoryStore, MemoryTarget
from tests.support.postgres_reading import LARGE_PAGES, SMALL_PAGES, Shop, table
from tests.support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_batchkit.connectors.sql import SqlSource
    from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.postgres

ROWS = 3000
ORDERS = table("orders", key=("day", "id"))
FILL = (
    "CREATE TABLE orders (id int NOT NULL, day date NOT NULL, note text, PRIMARY KEY (day, id))",
    f"INSERT INTO orders SELECT i, date '2026-01-01' + i*i % 7, repeat('x', 100) FROM generate_series(1, {ROWS}) i",  # noqa: E501, S608  # a test's own text
    "ANALYZE orders",
)
IDS = "SELECT format('[\"%s\",%s]', day, id) FROM orders ORDER BY day, id"
OURS = "application_name LIKE 'batchkit%' AND pid <> pg_backend_pid()"


@pytest.fixture
def shop(postgres_server: PostgresServer, database: str) -> Shop:
    """Make a database with orders over seven days."""
    shop = Shop(postgres_server, database)
    shop.run(*FILL)
    return shop


class Export:
    """One run of a job, leg after leg, into memory."""

    def __init__(self, shop: Shop, source: SqlSource = ORDERS) -> None:
        self.shop = shop
        self.target = MemoryTarget()
        self.store = MemoryStore()
        self.job = Job(
            name="export o'rders",
            source=source,
            sink=MemorySink(target=self.target),
            batch=BatchPolicy(max_records=250),
            batch_retry=BatchRetry(max_tries=1),
            timeouts=Timeouts(request=timedelta(seconds=30)),
        )

    def leg(self) -> None:
        Pipeline(
            self.job,
            identity=RunIdentity(run="run-1"),
            store=self.store,
            key="export",
            connections=self.shop.connections,
            max_stuck_legs=100,
        ).run()

    def to_the_end(self) -> int:
        """Run leg after leg; return how many it took."""
        for legs in range(1, 30):
            try:
                self.leg()
            except (StoppedError, TransientError):
                continue
            return legs
        raise AssertionError("not finished after 30 legs")

    def check(self) -> None:
        """Every row is there once, in the order of the key."""
        assert self.target.published is not None
        assert self.target.published.ids == [row[0] for row in self.shop.run(IDS)]


def sessions(shop: Shop, condition: str = OURS) -> list[int]:
    """Return the server's process ids of our sessions."""
    found = shop.run(f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {condition}")  # noqa: S608  # a test's own text
    return [row[0] for row in found]


def test_export_whose_writes_fail_resumes_without_loss(shop: Shop) -> None:
    """An export whose writes fail again and again ends with each row once, in the key's order."""
    export = Export(shop)
    for write in (3, 5, 6, 9):
        export.target.script.fail("write", TransientError("the target is gone"), at=write)
    assert export.to_the_end() > 2
    export.check()


def test_killed_session_is_read_on(new_postgres_server: Callable[..., PostgresServer]) -> None:
    """A session whose process is killed (with it PostgreSQL ends all others) goes on after its last row."""
    server = new_postgres_server()
    shop = Shop(server, "postgres")
    shop.run(*FILL)
    opened = shop.opened(ORDERS)
    reader = iter(opened.read(0, None, replace(SMALL_PAGES, page_records=100)))
    page = next(reader)
    found = [record.id for record in page.records]
    assert page.cursor_at is not None
    (pid,) = sessions(shop, "application_name = 'airflow-batchkit' AND pid <> pg_backend_pid()")
    server.backend(pid).send_signal(signal.SIGKILL)
    with pytest.raises(TransientError, match="PostgreSQL: "):
        next(reader)
    wait_until(lambda: server.starts == 2, seconds=30, what="the server to have recovered")
    found += [
        record.id for page in opened.read(0, page.cursor_at(99), LARGE_PAGES) for record in page.records
    ]
    assert found == [row[0] for row in shop.run(IDS)]
    opened.close()


def test_export_survives_restarts_of_the_server(new_postgres_server: Callable[..., PostgresServer]) -> None:
    """A server that is restarted, and one that is killed, in the middle of a run cost a leg and no row."""
    server = new_postgres_server()
    shop = Shop(server, "postgres")
    # Much more than is read ahead: the rest has to come from the server that was started again.
    shop.run(*FILL, "UPDATE orders SET note = repeat('x', 10000)")
    export = Export(shop)
    ends: list[Callable[[], None]] = [server.kill, server.stop_in_order]

    def cut() -> None:
        if ends:
            ends.pop()()
            server.start()

    export.job = replace(export.job, transform=_CuttingTransform(cut, every=700))
    assert 2 <= export.to_the_end() <= 4
    assert not ends
    export.check()


class _CuttingTransform:
    """Passes everything, and does something at every so-many-th record.

    :param act: what it does.
    :param every: how often.
    """

    def __init__(self, act: Callable[[], None], *, every: int) -> None:
        self._act = act
        self._every = every
        self._seen = 0

    def __call__(self, order: dict[str, Any]) -> dict[str, Any]:
        self._seen += 1
        if self._seen % self._every == 0:
            self._act()
        return order


def test_standby_is_read_like_its_primary(new_postgres_server: Callable[..., PostgresServer]) -> None:
    """A run that began on the primary goes on at its standby: same cluster, same table, read-only."""
    primary = new_postgres_server()
    shop = Shop(primary, "postgres")
    shop.run(*FILL)
    standby = Shop(new_postgres_server(standby_of=primary), "postgres")
    wait_until(
        lambda: standby.run("SELECT to_regclass('orders') IS NOT NULL") == [(True,)],
        seconds=30,
        what="the standby to have the table",
    )
    first, second = shop.opened(ORDERS), standby.opened(ORDERS)
    assert first.fingerprints == second.fingerprints
    page = next(iter(first.read(0, None, SMALL_PAGES)))
    assert page.cursor_at is not None
    found = [record.id for record in page.records]
    found += [record.id for page in second.read(0, page.cursor_at(2), LARGE_PAGES) for record in page.records]
    assert found == [row[0] for row in shop.run(IDS)]
    first.close()
    second.close()


def test_rows_that_change_meanwhile(shop: Shop) -> None:
    """Rows inserted behind the cursor are read, deleted ones are not; no other comes twice or is lost."""
    reader = shop.pages(ORDERS, replace(SMALL_PAGES, page_records=500))
    found = [record.id for record in next(reader).records]
    before = {row[0] for row in shop.run(IDS)}
    shop.run(
        "INSERT INTO orders VALUES (9001, '2025-12-31', 'before the cursor')",
        "INSERT INTO orders VALUES (9002, '2026-02-01', 'behind the cursor')",
        "DELETE FROM orders WHERE day = '2026-01-05' AND id % 2 = 0",
        "VACUUM FULL orders",
    )
    found += [record.id for page in reader for record in page.records]
    assert len(found) == len(set(found))
    throughout = before & {row[0] for row in shop.run(IDS)}
    assert throughout | {'["2026-02-01",9002]'} == set(found)


def test_no_transaction_stays_open_between_pages(shop: Shop) -> None:
    """While the sink takes its time, no snapshot keeps vacuum from its work, and no lock anybody waiting."""
    reader = shop.pages(ORDERS, replace(SMALL_PAGES, page_records=10))
    next(reader)
    state = shop.run(
        "SELECT state, backend_xmin FROM pg_stat_activity"
        " WHERE application_name = 'airflow-batchkit' AND datname = current_database() AND state = 'idle'"
    )
    assert state == [("idle", None)]
    shop.run("SET lock_timeout = 2000", "ALTER TABLE orders ALTER COLUMN note SET DEFAULT 'y'")
    assert next(reader).records
    reader.close()


@pytest.fixture
def endless(shop: Shop) -> SqlSource:
    """Give a source whose query never ends."""
    shop.run(
        "CREATE FUNCTION never(int) RETURNS boolean VOLATILE LANGUAGE sql "
        "AS 'SELECT pg_sleep(600) IS NOT NULL'"
    )
    return replace(ORDERS, where="never(id)")


def test_close_ends_a_reader_in_a_long_query(shop: Shop, endless: SqlSource) -> None:
    """A reader that hangs in a query is ended by close(), and so is the query, which names our job."""
    opened = shop.opened(endless, state={"total": ROWS}, job="nightly")
    raised: list[BaseException] = []

    def read() -> None:
        try:
            list(opened.read(0, None, LARGE_PAGES))
        except TransientError as error:
            raised.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    running = "application_name = 'batchkit nightly' AND state = 'active'"
    wait_until(lambda: bool(sessions(shop, running)), seconds=20, what="the query")
    opened.close()
    reader.join(10)
    assert not reader.is_alive()
    assert "closed" in str(raised[0])
    wait_until(lambda: not sessions(shop, running), seconds=20, what="the end of the query")


def test_query_over_its_limit_is_ended_by_the_server(shop: Shop, endless: SqlSource) -> None:
    """A query that takes longer than Timeouts.request is ended there, and may be tried again."""
    quick = Timeouts(request=timedelta(seconds=0.3))
    opened = shop.opened(endless, state={"total": ROWS}, timeouts=quick)
    with pytest.raises(TransientError, match=r"longer than 0\.3 s \(Timeouts\.request\)"):
        list(opened.read(0, None, LARGE_PAGES))
    wait_until(
        lambda: not sessions(shop, "state = 'active' AND pid <> pg_backend_pid()"), seconds=20, what="it"
    )
    opened.close()


def test_server_that_answers_nothing_is_given_up(shop: Shop, endless: SqlSource) -> None:
    """A process of the server that is frozen cannot end its query: the reader ends by itself."""
    opened = shop.opened(endless, state={"total": ROWS}, timeouts=Timeouts(request=timedelta(seconds=0.5)))
    reader = iter(opened.read(0, None, LARGE_PAGES))
    raised: list[BaseException] = []

    def read() -> None:
        try:
            next(reader)
        except TransientError as error:
            raised.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    active = "application_name LIKE 'batchkit%' AND state = 'active'"
    wait_until(lambda: bool(sessions(shop, active)), seconds=20, what="the query", every=0.01)
    (pid,) = sessions(shop, active)
    frozen = shop.server.backend(pid)
    frozen.suspend()
    try:
        thread.join(20)
        assert not thread.is_alive()
        assert "longer than 0.5 s" in str(raised[0])
    finally:
        frozen.resume()
        opened.close()


def test_locked_table_is_tried_again(shop: Shop) -> None:
    """A table that somebody rebuilds is waited for a little, then later again, with a line that says so."""
    opened = shop.opened(ORDERS, timeouts=Timeouts(read=timedelta(seconds=0.3)))
    with shop.server.connect(shop.database) as other:
        other.execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TransientError, match="somebody has locked the table"):
            list(opened.read(0, None, LARGE_PAGES))
        other.execute("ROLLBACK")
    assert next(iter(opened.read(0, None, LARGE_PAGES))).records
    opened.close()


def test_nothing_can_be_written(shop: Shop) -> None:
    """Not even a function in the condition can change anything: each page is a read-only transaction."""
    shop.run(
        "CREATE FUNCTION spoil(int) RETURNS boolean LANGUAGE plpgsql "
        "AS $$ BEGIN DELETE FROM orders; RETURN true; END $$"
    )
    opened = shop.opened(replace(ORDERS, where="spoil(id)"), state={"total": 1})
    with pytest.raises(Exception, match="25006"):
        list(opened.read(0, None, LARGE_PAGES))
    opened.close()
    assert shop.run("SELECT count(*) FROM orders") == [(ROWS,)]


def test_large_table_is_estimated(shop: Shop) -> None:
    """A count that would strain the server is the planner's estimate instead, and the next leg keeps it."""
    opened = shop.opened(ORDERS)
    assert opened.total is not None
    assert (opened.total.records, opened.total.exact) == (ROWS, True)
    opened.close()
    shop.run(
        "CREATE VIEW many AS SELECT a.id * 10000::bigint + b.id AS id FROM orders AS a, orders AS b",
    )
    opened = shop.opened(table("many", key=("id",)))
    assert opened.total is not None
    assert not opened.total.exact
    assert opened.total.records > ROWS * ROWS / 10
    again = shop.opened(table("many", key=("id",)), state=opened.state)
    assert again.total == opened.total
    opened.close()
    again.close()


@pytest.mark.parametrize(
    ("statements", "differs"),
    [
        (["VACUUM FULL orders"], None),
        (["TRUNCATE orders"], None),
        (["ALTER TABLE orders ADD COLUMN extra int"], "schema"),
        (["ALTER TABLE orders ALTER COLUMN note TYPE varchar(200)"], "schema"),
        (
            [
                "CREATE TABLE twin (LIKE orders INCLUDING ALL)",
                "DROP TABLE orders",
                "ALTER TABLE twin RENAME TO orders",
            ],
            "source",
        ),
    ],
)
def test_changed_table_is_not_resumed(shop: Shop, statements: list[str], differs: str | None) -> None:
    """A table that was made anew, or has other columns, is another one; one only rewritten is not."""
    export = Export(shop)
    export.target.script.fail("write", TransientError("the target is gone"), at=3)
    with pytest.raises((StoppedError, TransientError)):
        export.leg()
    shop.run(*statements)
    if differs is None:
        export.leg()
        assert export.target.published is not None
    else:
        with pytest.raises(CannotResumeError, match=differs):
            export.leg()


def test_memory_does_not_grow_with_the_table_or_its_rows(shop: Shop) -> None:
    """Ten times as many rows take no more memory, and a few that are suddenly huge are not read together."""
    shop.run(
        "CREATE TABLE large AS SELECT i AS id, repeat('x', 100) AS note FROM generate_series(1, 30000) AS i",
        "ALTER TABLE large ADD PRIMARY KEY (id)",
    )
    sizing = Sizing(batch_records=None, batch_bytes=1024, page_bytes=100_000)

    def peak(source: SqlSource) -> int:
        gc.collect()
        tracemalloc.start()
        for _ in shop.pages(source, sizing):
            pass
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    few = peak(table("large", where="id <= 3000"))
    assert peak(table("large")) < few * 1.2
    shop.run("UPDATE large SET note = repeat('y', 1000000) WHERE id BETWEEN 2000 AND 2400")
    pages = list(shop.pages(table("large", where="id <= 2100"), sizing))
    assert sum(len(page.records) for page in pages) == 2100
    assert max(page.nbytes for page in pages) < 1_200_000
