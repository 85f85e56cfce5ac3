"""The SQL source on a real PostgreSQL: what it tells, what it leaves alone, how it goes on after faults."""

from __future__ import annotations

import gc
import json
import signal
import threading
import tracemalloc
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.engine.exceptions import CannotResumeError, StoppedError, TransientError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.types import Sizing
from tests.support.postgres_reading import LARGE_PAGES, ORDERS, SMALL_PAGES, Shop, fill, table
from tests.support.processes import wait_until
from tests.support.table_exports import TableExport, id_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_batchkit.connectors.sql import SqlSource
    from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.postgres

ROWS = 3000
NOTE = "repeat('x', 100)"
OURS = "application_name LIKE 'batchkit%' AND pid <> pg_backend_pid()"


@pytest.fixture
def shop(postgres_server: PostgresServer, database: str) -> Shop:
    """Make a database with orders over seven days."""
    shop = Shop(postgres_server, database)
    shop.run(*fill(ROWS, note=NOTE))
    return shop


def export_of(shop: Shop) -> TableExport:
    """Return a run that exports the orders."""
    return TableExport(ORDERS, shop.connections, timeouts=Timeouts(request=timedelta(seconds=30)))


def sessions(shop: Shop, condition: str = OURS) -> list[int]:
    """Return the server's process ids of our sessions."""
    found = shop.run(f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {condition}")  # noqa: S608  # a test's own text
    return [row[0] for row in found]


def test_export_whose_writes_fail_resumes_without_loss(shop: Shop) -> None:
    """An export whose writes fail again and again ends with each row once, in the key's order."""
    export = export_of(shop)
    for write in (3, 5, 6, 9):
        export.target.script.fail("write", TransientError("the target is gone"), at=write)
    assert export.to_the_end() > 2
    export.check(shop.orders())


def test_killed_session_is_read_on(new_postgres_server: Callable[..., PostgresServer]) -> None:
    """A session whose process is killed (with it PostgreSQL ends all others) goes on after its last row."""
    server = new_postgres_server()
    shop = Shop(server, "postgres")
    shop.run(*fill(ROWS, note=NOTE))
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
    assert found == [id_of(row) for row in shop.orders()]
    opened.close()


@pytest.mark.fault("cut", at="postgres")
@pytest.mark.fault("refused", at="postgres")
def test_export_survives_restarts_of_the_server(new_postgres_server: Callable[..., PostgresServer]) -> None:
    """A server that is restarted, and one that is killed, in the middle of a run cost a leg and no row."""
    server = new_postgres_server()
    shop = Shop(server, "postgres")
    # Much more than is read ahead: the rest has to come from the server that was started again.
    shop.run(*fill(ROWS, note=NOTE), "UPDATE orders SET note = repeat('x', 10000)")
    export = export_of(shop)
    ends: list[Callable[[], None]] = [server.kill, server.stop_in_order]

    def cut() -> None:
        if ends:
            ends.pop()()
            server.start()

    export.job = replace(export.job, transform=_CuttingTransform(cut, every=700))
    assert 2 <= export.to_the_end() <= 4
    assert not ends
    export.check(shop.orders())


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


@pytest.mark.fault("refused", at="postgres")
def test_run_goes_on_at_the_standby(new_postgres_server: Callable[..., PostgresServer]) -> None:
    """A run whose primary is lost goes on at its standby: same cluster, same table, read-only."""
    primary = new_postgres_server()
    shop = Shop(primary, "postgres")
    shop.run(*fill(ROWS, note=NOTE))
    standby = Shop(new_postgres_server(standby_of=primary), "postgres")
    wait_until(
        lambda: standby.run("SELECT to_regclass('orders') IS NOT NULL") == [(True,)],
        seconds=30,
        what="the standby to have the table",
    )
    rows = shop.orders()
    export = export_of(shop)
    export.target.script.fail("write", TransientError("the target is gone"), at=5)
    with pytest.raises(StoppedError):
        export.leg()
    primary.kill()
    with pytest.raises(TransientError):
        export.leg()
    assert 0 < export.saved < ROWS
    export.connections = standby.connections
    assert export.leg().legs == 2
    export.check(rows)


@pytest.mark.fault("changing-source", at="postgres")
def test_rows_that_change_meanwhile(shop: Shop) -> None:
    """Rows inserted behind the cursor are read, deleted ones are not; no other comes twice or is lost."""
    reader = shop.pages(ORDERS, replace(SMALL_PAGES, page_records=500))
    found = list(next(reader).records)
    before = shop.orders()
    shop.run(
        "INSERT INTO orders VALUES (9001, '2025-12-31', 'before the cursor')",
        "INSERT INTO orders VALUES (9002, '2026-02-01', 'behind the cursor')",
        "DELETE FROM orders WHERE day = '2026-01-05' AND id % 2 = 0",
        "UPDATE orders SET note = 'changed behind the cursor' WHERE day = '2026-01-06'",
        "VACUUM FULL orders",
    )
    found += [record for page in reader for record in page.records]
    now = [row for row in shop.orders() if row["id"] != 9001]
    gone = {id_of(row) for row in before} - {id_of(row) for row in now}
    assert len(gone) > 100
    assert [json.loads(record.body) for record in found] == now
    assert [record.id for record in found] == [id_of(row) for row in now]


@pytest.mark.fault("changing-source", at="postgres")
def test_row_that_pages_share_and_that_goes(shop: Shop) -> None:
    """Pages of a view begin with the last row of the one before: without it, none is lost or comes twice."""
    shop.run("CREATE VIEW seen AS SELECT * FROM orders")
    reader = shop.pages(table("seen", key=("day", "id")), replace(SMALL_PAGES, page_records=100))
    found = list(next(reader).records)
    last = json.loads(found[-1].body)
    expected = shop.orders()
    shop.run(f"DELETE FROM orders WHERE id = {last['id']}")  # noqa: S608  # a test's own number
    found += [record for page in reader for record in page.records]
    assert [json.loads(record.body) for record in found] == expected


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


@pytest.mark.fault("slow", at="postgres")
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


@pytest.mark.fault("slow", at="postgres")
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


@pytest.mark.fault("checkpoint-unfit", at="postgres")
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
    export = export_of(shop)
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
