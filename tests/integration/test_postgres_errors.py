"""What a real PostgreSQL answers when something is wrong, each told by what the caller can do about it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.sql.errors import classify_postgres
from airflow_batchkit.connectors.sql.postgres.endpoint import connect
from airflow_batchkit.engine.exceptions import BatchkitError, PushbackError, TransientError, UsageError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.testing.doubles import FakeConnections
from tests.support.certificates import Authority
from tests.support.postgres import PostgresServer
from tests.support.postgres_reading import LARGE_PAGES, Shop, table
from tests.support.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_batchkit.connectors.sql.postgres.endpoint import PostgresEndpoint

pytestmark = pytest.mark.postgres

QUICK = Timeouts(connect=timedelta(seconds=3))


@pytest.fixture
def shop(postgres_server: PostgresServer, database: str) -> Shop:
    """Make a database with one table."""
    shop = Shop(postgres_server, database)
    shop.run(
        "CREATE TABLE orders (id int PRIMARY KEY, note text, secret text)",
        "INSERT INTO orders VALUES (1, 'hush', 'hush')",
    )
    return shop


def opening_error(shop: Shop, endpoint: PostgresEndpoint) -> BatchkitError:
    """Open the source by a connection that cannot work; return what that raised."""
    connections = FakeConnections({"shop": lambda: connect(endpoint, QUICK)})
    with pytest.raises(BatchkitError) as caught:
        table("orders").open(shop.context(connections=connections))
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nothing = 1", 'column "nothing" does not exist'),
        ("id = = 1", "syntax error"),
        ("id = 'a'::text", "operator does not exist"),
        ("nothing(id)", "function nothing"),
        ("note::int > 1", r"InvalidTextRepresentation \(22P02\)"),
        ("1 / (id - 1) > 0", r"DivisionByZero \(22012\)"),
        ("id > 'nothing'", r"\(22P02\)"),
    ],
)
def test_condition_that_cannot_work_is_a_usage_error(shop: Shop, where: str, message: str) -> None:
    """What is wrong is said in one line with the way out; a row's content is never repeated."""
    with pytest.raises(UsageError, match=f"{message}.*check .*where") as caught:
        shop.opened(table("orders", where=where))
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None or "hush" not in str(caught.value.__cause__)


def test_table_without_the_right_to_read_it(shop: Shop) -> None:
    """Who may not read a table, or one of its columns, is told what to grant; the others can be read."""
    role = f"reader_{shop.database}"
    shop.run(f"CREATE ROLE {role} LOGIN")
    connections = FakeConnections(
        {"shop": lambda: connect(shop.server.endpoint(shop.database, user=role), QUICK)}
    )
    context = shop.context(connections=connections)
    try:
        with pytest.raises(UsageError, match=r"permission denied for table orders \(42501\); grant SELECT"):
            table("orders").open(context)
        shop.run(f"GRANT SELECT (id, note) ON orders TO {role}")
        opened = table("orders", columns=("id", "note")).open(context)
        (page,) = opened.read(0, None, LARGE_PAGES)
        assert [bytes(record.body) for record in page.records] == [b'{"id":1,"note":"hush"}']
        opened.close()
    finally:
        shop.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_unknown_table_names_the_others(shop: Shop) -> None:
    """A mistyped name is answered with the names that there are."""
    with pytest.raises(UsageError, match=r"there is no table 'order' in database .* there are orders"):
        shop.opened(table("order"))


def test_database_that_does_not_say_its_encoding_is_refused(postgres_server: PostgresServer) -> None:
    """SQL_ASCII holds bytes of unknown meaning, which are no JSON."""
    name = postgres_server.new_database(encoding="SQL_ASCII", lc_collate="C", lc_ctype="C")
    with pytest.raises(UsageError, match="SQL_ASCII"):
        Shop(postgres_server, name).opened(table("orders"))
    postgres_server.drop_database(name)


def test_what_is_not_there_is_told_apart(shop: Shop) -> None:
    """A server that does not answer may come back; a database or a user that does not exist will not."""
    error = opening_error(shop, shop.server.endpoint(shop.database, port=free_port()))
    assert isinstance(error, TransientError)
    assert "it is tried again" in str(error)
    error = opening_error(shop, shop.server.endpoint("nowhere"))
    assert isinstance(error, UsageError)
    assert 'database "nowhere" does not exist; check the name of the database' in str(error)
    error = opening_error(shop, shop.server.endpoint(shop.database, user="nobody"))
    assert isinstance(error, UsageError)
    assert 'role "nobody" does not exist; check user, password and pg_hba.conf' in str(error)


def test_wrong_password_is_a_usage_error(
    shop: Shop, new_postgres_server: Callable[..., PostgresServer]
) -> None:
    """A password that is wrong or missing is said, and not repeated; so is a user who is not let in."""
    rules = "host all reader 127.0.0.1/32 scram-sha-256\nhost all other 127.0.0.1/32 reject\n"
    server = new_postgres_server(host_rules=rules)
    server.run("CREATE ROLE reader LOGIN PASSWORD 'right-one'", "CREATE ROLE other LOGIN")
    for endpoint in (
        server.endpoint(user="reader", password="wrong-one"),
        server.endpoint(user="reader"),
        server.endpoint(user="other"),
    ):
        error = opening_error(shop, endpoint)
        assert isinstance(error, UsageError), error
        assert "check user, password and pg_hba.conf" in str(error)
        assert "wrong-one" not in f"{error} {endpoint!r}"
    with connect(server.endpoint(user="reader", password="right-one"), QUICK) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_full_server_pushes_back(shop: Shop, new_postgres_server: Callable[..., PostgresServer]) -> None:
    """A server without a free connection is asked again later."""
    server = new_postgres_server(
        settings={"max_connections": 3, "superuser_reserved_connections": 0, "max_wal_senders": 0}
    )
    held = [server.connect() for _ in range(3)]
    assert isinstance(opening_error(shop, server.endpoint()), PushbackError)
    for connection in held:
        connection.close()


@pytest.mark.parametrize(
    ("statement", "kind", "state"),
    [
        ("SELECT pg_terminate_backend(pg_backend_pid())", TransientError, "57P01"),
        ("SELECT pg_cancel_backend(pg_backend_pid())", TransientError, "57014"),
        ("SET statement_timeout = 1; SELECT pg_sleep(9)", TransientError, "57014"),
        ("DO $$ BEGIN RAISE SQLSTATE '25P03'; END $$", TransientError, "25P03"),
        ("DO $$ BEGIN RAISE SQLSTATE '57P05'; END $$", TransientError, "57P05"),
        ("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$", TransientError, "40001"),
        ("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$", TransientError, "40P01"),
        ("DO $$ BEGIN RAISE SQLSTATE '53100'; END $$", PushbackError, "53100"),
        ("DO $$ BEGIN RAISE SQLSTATE '58030'; END $$", TransientError, "58030"),
        ("SET search_path = nowhere; CREATE TABLE t ()", UsageError, "3F000"),
    ],
)
def test_sqlstate_decides(shop: Shop, statement: str, kind: type[BatchkitError], state: str) -> None:
    """Each state is classed as the table says, the message in one line with the state in it."""
    import psycopg

    with shop.server.connect(shop.database) as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute(statement.encode())
    classified = classify_postgres(caught.value)
    assert isinstance(classified, kind)
    assert f"({state})" in str(classified)
    assert "\n" not in str(classified)


def test_tls_is_verified(
    shop: Shop, new_postgres_server: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    """A server is believed only with the named authority's certificate for the name it was called by."""
    authority, stranger = Authority(), Authority("stranger")
    issued = authority.issue(["127.0.0.1"])
    files = {
        "server.crt": issued.certificate,
        "server.key": issued.key,
        "authority.pem": issued.authority,
        "stranger.pem": stranger.certificate,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    server = new_postgres_server(tls=(tmp_path / "server.crt", tmp_path / "server.key"))

    def checked(**changes: str) -> PostgresEndpoint:
        return server.endpoint(
            **{"sslmode": "verify-full", "sslrootcert": str(tmp_path / "authority.pem"), **changes}
        )

    with connect(checked(), QUICK) as connection:
        assert connection.pgconn.ssl_in_use
    for wrong in (
        {"sslrootcert": str(tmp_path / "stranger.pem")},
        {"host": "localhost"},
        {"sslrootcert": "/none.pem"},
    ):
        error = opening_error(shop, checked(**wrong))
        assert isinstance(error, UsageError), error
        assert "sslrootcert (PGSSLROOTCERT)" in str(error)
    error = opening_error(shop, shop.server.endpoint(sslmode="require"))
    assert isinstance(error, UsageError), error
    assert "server does not support SSL" in str(error)
