"""Dead letters in SQL tables, by people who may do less than the run that wrote them."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.sql import SqlDeadLetters
from airflow_batchkit.connectors.sql.postgres.endpoint import connect
from airflow_batchkit.engine.exceptions import BatchkitError, UsageError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.sink import BatchKey
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.testing.doubles import FakeConnections
from tests.support.letter_rows import letters_of
from tests.support.object_storage import leg, publication

if TYPE_CHECKING:
    from tests.support.postgres import PostgresServer

PLACE = SqlDeadLetters(conn_id="letters", table="letters")
NEEDED = ("SELECT", "INSERT", "UPDATE", "DELETE")


def context(connect: Callable[[], object]) -> OpenContext:
    """Return what a place is opened with."""
    return OpenContext(
        connections=FakeConnections({"letters": connect}),
        timeouts=Timeouts(),
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )


def keep(opening: OpenContext, run: str = "run-1") -> None:
    """Keep one letter, and settle it."""
    one = leg("a", run=run)
    with closing(PLACE.open(opening)) as place:
        place.start(one)
        place.put(BatchKey(partition=0, number=1), letters_of(one, 1, b"{}"))
        assert place.settle(publication(0, dead_lettered=1))["count"] == 1


def letters(opening: OpenContext) -> list[str]:
    """Return the ids of the letters that are there."""
    with closing(PLACE.open_letters(opening)) as place:
        place.check()
        return [line.letter.id for found in place.sets() for line in place.lines(found)]


def of_file(file: Path, mode: str = "rw") -> OpenContext:
    """Return what opens a SQLite file."""
    return context(lambda: sqlite3.connect(f"file:{file}?mode={mode}", uri=True, check_same_thread=False))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Make an empty SQLite database."""
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        database.execute("VACUUM")
    return tmp_path / "shop.db"


def test_a_file_that_cannot_be_written_can_be_looked_at(file: Path) -> None:
    """List and show write nothing; a run is told so at its start."""
    assert letters(of_file(file, "ro")) == []
    keep(of_file(file))

    assert letters(of_file(file, "ro")) == ["1.0"]
    with pytest.raises(UsageError, match="readonly database"):
        keep(of_file(file, "ro"), "run-2")


def test_letters_are_looked_at_while_somebody_writes(file: Path) -> None:
    """A reader waits for nobody who has begun to write."""
    keep(of_file(file))
    with closing(sqlite3.connect(file)) as writer:
        writer.execute("BEGIN IMMEDIATE")

        assert letters(of_file(file)) == ["1.0"]


@pytest.mark.parametrize("table", ["letters", "Letters_Notes"])
def test_a_table_of_something_else_is_refused_at_the_start(file: Path, table: str) -> None:
    """Not at the first record that is given up, which may be hours later."""
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(f"CREATE TABLE {table} (id INTEGER, name TEXT, part TEXT)")

    with pytest.raises(UsageError, match=r"was not made for dead letters \(it has no column '\w+'\)"):
        keep(of_file(file))


def test_a_name_in_other_letters_is_the_same_table(file: Path) -> None:
    """SQLite does not tell them apart: the letters are found under both."""
    with closing(sqlite3.connect(file)) as database, database:
        keep(of_file(file))
        database.execute("ALTER TABLE letters RENAME TO Letters2")
        database.execute("ALTER TABLE Letters2 RENAME TO Letters")
        database.execute("ALTER TABLE letters_notes RENAME TO Notes")
        database.execute("ALTER TABLE Notes RENAME TO LETTERS_NOTES")

    assert letters(of_file(file)) == ["1.0"]


@pytest.fixture
def role(postgres_server: PostgresServer, database: str) -> Iterator[str]:
    """Make a user with no rights."""
    name = f"keeper_{database}"
    postgres_server.run(f"CREATE ROLE {name} LOGIN", database=database)
    yield name
    postgres_server.run(f"DROP OWNED BY {name}", f"DROP ROLE {name}", database=database)


@pytest.fixture
def granting(postgres_server: PostgresServer, database: str, role: str) -> Callable[..., None]:
    """Give a function that makes the tables, and grants rights to the user."""
    keep(context(functools.partial(postgres_server.connect, database)))

    def grant(*rights: str) -> None:
        for right in rights:
            postgres_server.run(f"GRANT {right} ON letters, letters_notes TO {role}", database=database)

    return grant


@pytest.fixture
def opening(postgres_server: PostgresServer, database: str, role: str) -> OpenContext:
    """Return what opens the database as that user."""
    return context(lambda: connect(postgres_server.endpoint(database, user=role), Timeouts()))


def keep_and_hold(opening: OpenContext) -> None:
    """Do all that a run and a replay do to the tables."""
    keep(opening, "run-2")
    with closing(PLACE.open_letters(opening)) as place:
        hold = place.hold(next(place.sets()), leg("b"))
        hold.claim()
        hold.confirm()


@pytest.mark.postgres
@pytest.mark.parametrize("missing", NEEDED)
def test_a_missing_right_is_named(opening: OpenContext, granting: Callable[..., None], missing: str) -> None:
    """Without one of the documented rights the message says which to grant."""
    granting(*(right for right in NEEDED if right != missing))

    with pytest.raises(UsageError, match=rf"for table letters\w* \(42501\); grant {missing} on it") as caught:
        keep_and_hold(opening)
    assert "\n" not in str(caught.value)


@pytest.mark.postgres
def test_the_documented_rights_suffice(opening: OpenContext, granting: Callable[..., None]) -> None:
    """Who may not make tables keeps letters in those that are there; who may only read looks at them."""
    granting("SELECT")
    assert letters(opening) == ["1.0"]

    granting(*NEEDED)
    keep(opening, "run-2")
    assert letters(opening) == ["1.0", "1.0"]


@pytest.mark.postgres
def test_a_missing_right_to_make_tables_is_named(opening: OpenContext) -> None:
    """In a schema without the tables it is the right to make them."""
    with pytest.raises(BatchkitError, match=r"for schema public \(42501\); grant CREATE on it"):
        keep(opening)


@pytest.mark.postgres
def test_a_database_that_is_read_only_by_default_is_looked_at_and_written(
    postgres_server: PostgresServer, database: str
) -> None:
    """Reads ask for no more than that; what has to write says so."""
    postgres_server.run(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    opening = context(functools.partial(postgres_server.connect, database))

    assert letters(opening) == []
    keep(opening)
    assert letters(opening) == ["1.0"]
