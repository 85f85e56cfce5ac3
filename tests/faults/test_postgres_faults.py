"""Everything that a PostgreSQL, and the way to it, may do to a reader: after it, each row is there once."""

from __future__ import annotations

import logging
import random
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.sql.postgres.endpoint import connect
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    PermanentError,
    StoppedError,
    TransientError,
    UsageError,
)
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.testing.doubles import FakeConnections
from tests.support.fault_table import FULL
from tests.support.postgres_proxy import Fault, Message, PostgresProxy, at, proxied
from tests.support.postgres_reading import ORDERS, Shop, fill
from tests.support.table_exports import FEW, QUICK, TableExport

if TYPE_CHECKING:
    from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.postgres

ROWS = 700  # they are read in pages of 100, 400 and 200
SEED = 20260101


@pytest.fixture
def shop(postgres_server: PostgresServer, database: str) -> Shop:
    """Make a database with orders over seven days."""
    shop = Shop(postgres_server, database)
    shop.run(*fill(ROWS))
    return shop


def through(proxy: PostgresProxy, shop: Shop, timeouts: Timeouts, **login: str) -> FakeConnections:
    """Return connections that lead through a proxy."""
    endpoint = shop.server.endpoint(shop.database, port=proxy.port, sslmode="disable", **login)
    return FakeConnections({"shop": lambda: connect(endpoint, timeouts)})


def export_through(
    proxy: PostgresProxy, shop: Shop, *, timeouts: Timeouts | None = None, **login: str
) -> TableExport:
    """Return an export whose every word with the server passes the proxy."""
    timeouts = timeouts or Timeouts()
    return TableExport(ORDERS, through(proxy, shop, timeouts, **login), batch_retry=QUICK, timeouts=timeouts)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("reset", marks=pytest.mark.fault("cut", at="postgres")),
        pytest.param("halve", marks=pytest.mark.fault("cut", at="postgres")),
        pytest.param("halve and close", marks=pytest.mark.fault("cut", at="postgres")),
        pytest.param("lose the answer", marks=pytest.mark.fault("answer-lost", at="postgres")),
    ],
)
@pytest.mark.timeout(900)
def test_connection_that_breaks_at_any_message(shop: Shop, fault: Fault) -> None:
    """Broken at any word between client and server, that word comes again, and no row is lost or doubled."""
    rows = shop.orders()
    with proxied(shop.server.port) as proxy:
        export_through(proxy, shop).leg()
        count = proxy.messages
    assert count > ROWS
    numbers = list(range(1, count + 1))
    for number in numbers if FULL else random.Random(f"{SEED} {fault}").sample(numbers, 10):
        with proxied(shop.server.port, at(number, fault)) as proxy:
            export = export_through(proxy, shop)
            try:
                export.to_the_end()
                export.check(rows)
            except (AssertionError, BatchkitError) as error:
                error.add_note(f"{fault} at message {number} of {count}")
                raise
            assert proxy.messages >= number


class BeforePage:
    """Does something before a page is asked for, once: then the reader holds no transaction and no lock.

    :param page: which page, from 1; each after the first is asked for in two stages.
    :param act: what it does.
    """

    def __init__(self, page: int, act: Callable[[], object]) -> None:
        self._left = 2 * page - 2 or 1
        self._act = act

    def __call__(self, message: Message) -> Fault:
        """Be a plan."""
        if message.asked and b"row_to_json" in message.content and b"EXPLAIN" not in message.content:
            self._left -= 1
            if self._left == 0:
                self._act()
        return None


def test_pages_cost_no_connections(shop: Shop) -> None:
    """An export connects twice, to look and to read: no page that is read whole is cancelled."""
    beginnings: list[Message] = []

    def count(message: Message) -> Fault:
        if not message.kind:
            beginnings.append(message)
        return None

    with proxied(shop.server.port, count) as proxy:
        export = export_through(proxy, shop)
        export.leg()
    assert len(beginnings) == 2
    export.check(shop.orders())


@pytest.mark.fault("slow", at="postgres")
@pytest.mark.parametrize("fault", ["stall", "trickle"])
def test_answer_that_never_ends(shop: Shop, fault: Fault) -> None:
    """A page of which nothing more comes, or a byte now and then, is given up in time and asked for again."""
    limits = Timeouts(request=timedelta(seconds=0.4))
    with proxied(shop.server.port) as proxy:
        proxy.plan = _first_answer_of_a_page(fault)
        export = export_through(proxy, shop, timeouts=limits)
        assert export.to_the_end() == 1
    export.check(shop.orders())
    assert export.heard.named("retry") == [
        ("read of orders", "a query took longer than 0.4 s (Timeouts.request)", 1)
    ]


def _first_answer_of_a_page(fault: Fault) -> Callable[[Message], Fault]:
    """Plan a fault at the first row of the second page."""
    asked, struck = threading.Event(), threading.Event()
    second = BeforePage(2, asked.set)

    def plan(message: Message) -> Fault:
        second(message)
        if asked.is_set() and not message.asked and message.kind == "D" and not struck.is_set():
            struck.set()
            return fault
        return None

    return plan


@pytest.mark.fault("slow", at="postgres")
def test_server_that_takes_a_connection_and_says_nothing(shop: Shop) -> None:
    """Connecting is given up after Timeouts.connect, and tried again."""
    with proxied(shop.server.port, at(1, "stall")) as proxy:
        export = export_through(proxy, shop, timeouts=Timeouts(connect=timedelta(seconds=1)))
        with pytest.raises(TransientError, match="timeout"):
            export.leg()
        export.leg()
    export.check(shop.orders())


@pytest.mark.fault("refused", at="postgres")
def test_server_that_is_away_for_a_while(shop: Shop) -> None:
    """Connections refused in the middle of a run are tried again within the leg; longer, and the leg ends."""
    with proxied(shop.server.port) as proxy:
        export = export_through(proxy, shop)
        proxy.plan = BeforePage(2, proxy.refuse)
        export.at_first_retry(proxy.listen_again)
        assert export.to_the_end() == 1
        export.check(shop.orders())

        export = export_through(proxy, shop)
        proxy.plan = BeforePage(2, proxy.refuse)
        with pytest.raises(StoppedError, match="the server does not answer"):
            export.leg()
        saved = export.saved
        with pytest.raises(TransientError, match="it is tried again"):
            export.leg()
        assert export.saved == saved
        proxy.listen_again()
        export.to_the_end()
        export.check(shop.orders())


@pytest.fixture
def reader(shop: Shop) -> Iterator[str]:
    """Give a role of the test's own that may read the orders; superusers are bound by nothing."""
    role = f"reader_{shop.database}"
    shop.run(f"CREATE ROLE {role} LOGIN", f"GRANT SELECT ON orders TO {role}")
    yield role
    shop.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Something that somebody does in the database between two pages of a run.

    :param does: statements; ``{reader}`` is the role that reads.
    :param says: what the leg's end says, or its first retry.
    :param ends: how the leg ends; None: it tries again, and goes on to the end of the run.
    :param mends: statements that make it good, after the leg or when it tries again; None: nothing does.
    """

    does: tuple[str, ...]
    says: str
    ends: type[BatchkitError] | None = None
    mends: tuple[str, ...] | None = None


DISCONNECT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{reader}'"
NO_CONNECTION = ("ALTER ROLE {reader} CONNECTION LIMIT 0", DISCONNECT)
CONNECTIONS = ("ALTER ROLE {reader} CONNECTION LIMIT -1",)
GONE = 'relation "public.orders" does not exist'
TROUBLES = [
    pytest.param(
        Trouble(does=(DISCONNECT,), says=r"\(57P01\)|connection broke"),
        marks=pytest.mark.fault("cut", at="postgres"),
        id="session ended",
    ),
    pytest.param(
        Trouble(does=("DROP TABLE orders",), ends=UsageError, says=GONE),
        marks=pytest.mark.fault("source-gone", at="postgres"),
        id="table dropped",
    ),
    pytest.param(
        Trouble(
            does=("ALTER TABLE orders RENAME TO elsewhere",),
            ends=UsageError,
            says=GONE,
            mends=("ALTER TABLE elsewhere RENAME TO orders",),
        ),
        marks=pytest.mark.fault("source-gone", at="postgres"),
        id="table renamed",
    ),
    pytest.param(
        Trouble(
            does=("ALTER TABLE orders DROP COLUMN note",),
            ends=UsageError,
            says="column .*note.* does not exist",
        ),
        marks=pytest.mark.fault("source-gone", at="postgres"),
        id="column dropped",
    ),
    pytest.param(
        Trouble(
            does=(
                "CREATE TABLE twin (LIKE orders INCLUDING ALL)",
                "INSERT INTO twin SELECT id, day, 'twin' FROM orders",
                "GRANT SELECT ON twin TO {reader}",
                "BEGIN; ALTER TABLE orders RENAME TO elsewhere; ALTER TABLE twin RENAME TO orders; COMMIT",
            ),
            ends=PermanentError,
            says="'orders' is another table than when the run began",
            mends=("ALTER TABLE orders RENAME TO twin", "ALTER TABLE elsewhere RENAME TO orders"),
        ),
        marks=pytest.mark.fault("source-gone", at="postgres"),
        id="another table in its place",
    ),
    pytest.param(
        Trouble(
            does=("REVOKE SELECT ON orders FROM {reader}",),
            ends=UsageError,
            says=r"permission denied for table orders \(42501\); grant SELECT",
            mends=("GRANT SELECT ON orders TO {reader}",),
        ),
        marks=pytest.mark.fault("credentials", at="postgres"),
        id="right to read taken back",
    ),
    pytest.param(
        Trouble(
            does=("ALTER ROLE {reader} NOLOGIN", DISCONNECT),
            ends=UsageError,
            says="not permitted to log in; check user",
            mends=("ALTER ROLE {reader} LOGIN",),
        ),
        marks=pytest.mark.fault("credentials", at="postgres"),
        id="login taken back",
    ),
    pytest.param(
        Trouble(does=NO_CONNECTION, ends=StoppedError, says="too many connections", mends=CONNECTIONS),
        marks=pytest.mark.fault("pushback", at="postgres"),
        id="too many connections",
    ),
    pytest.param(
        Trouble(does=NO_CONNECTION, says=r"\(57P01\)|connection broke", mends=CONNECTIONS),
        marks=pytest.mark.fault("pushback", at="postgres"),
        id="too many connections for a moment",
    ),
]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_between_two_pages(shop: Shop, reader: str, trouble: Trouble) -> None:
    """It is tried again, or ends the run in one line that names it; nothing else is taken for the table."""
    rows = shop.orders()

    def does(statements: tuple[str, ...] | None) -> None:
        if statements is not None:
            shop.run(*(statement.replace("{reader}", reader) for statement in statements))

    with proxied(shop.server.port) as proxy:
        export = export_through(proxy, shop, user=reader)
        proxy.plan = BeforePage(2, lambda: does(trouble.does))
        if trouble.ends is None:
            export.at_first_retry(lambda: does(trouble.mends))
            assert export.to_the_end() == 1
            assert re.search(trouble.says, export.heard.named("retry")[0][1])
        else:
            with pytest.raises(trouble.ends, match=trouble.says) as caught:
                export.leg()
            assert "\n" not in str(caught.value)
            export.check_nothing_published()
            if trouble.mends is None:
                return
            does(trouble.mends)
            export.to_the_end()
        export.check(rows)


@pytest.mark.fault("source-gone", at="postgres")
def test_table_that_is_locked_for_a_moment(shop: Shop) -> None:
    """A table that somebody rebuilds is waited for, and asked for again; the run goes on to its end."""
    with proxied(shop.server.port) as proxy, shop.server.connect(shop.database) as other:
        export = export_through(proxy, shop, timeouts=Timeouts(read=timedelta(seconds=0.2)))
        lock = "BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"
        proxy.plan = BeforePage(2, lambda: other.execute(lock.encode()))
        export.at_first_retry(lambda: other.execute("ROLLBACK"))
        assert export.to_the_end() == 1
    assert "somebody has locked the table" in export.heard.named("retry")[0][1]
    export.check(shop.orders())


@pytest.mark.fault("credentials", at="postgres")
def test_password_that_is_changed_in_the_middle(
    new_postgres_server: Callable[..., PostgresServer], caplog: pytest.LogCaptureFixture
) -> None:
    """The run ends and says which setting to look at, never the password; with the new one it goes on."""
    server = new_postgres_server(host_rules="host all reader 127.0.0.1/32 scram-sha-256\n")
    shop = Shop(server, "postgres")
    shop.run(*fill(ROWS), "CREATE ROLE reader LOGIN PASSWORD 'older-one'", "GRANT SELECT ON orders TO reader")
    with proxied(server.port) as proxy, caplog.at_level(logging.DEBUG):
        export = export_through(proxy, shop, user="reader", password="older-one")
        proxy.plan = BeforePage(
            2,
            lambda: shop.run(
                "ALTER ROLE reader PASSWORD 'newer-one'", DISCONNECT.replace("{reader}", "reader")
            ),
        )
        with pytest.raises(UsageError, match="check user, password and pg_hba") as caught:
            export.leg()
        export.check_nothing_published()
        export.connections = through(proxy, shop, Timeouts(), user="reader", password="newer-one")
        export.to_the_end()
    export.check(shop.orders())
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "older-one" not in shown
    assert "newer-one" not in shown


@pytest.mark.fault("changing-source", at="postgres")
def test_rows_that_go_in_the_middle(shop: Shop) -> None:
    """Of a table that is emptied under the reader comes what was read before, each row once; it adds up."""
    rows = shop.orders()
    with proxied(shop.server.port) as proxy:
        export = export_through(proxy, shop)
        proxy.plan = BeforePage(2, lambda: shop.run("TRUNCATE orders"))
        assert export.to_the_end() == 1
    export.check(rows[:100])


@pytest.mark.fault("few-records", at="postgres")
@pytest.mark.parametrize("rows", FEW)
def test_few_rows(postgres_server: PostgresServer, database: str, rows: int) -> None:
    """None, one, exactly one page, one batch, and one more: all of them, in no more batches than needed."""
    shop = Shop(postgres_server, database)
    shop.run(*fill(rows))
    export = TableExport(ORDERS, shop.connections)
    assert export.leg().counts["read"] == rows
    export.check(shop.orders())
