"""Everything that may happen to a SQLite file under its reader: nothing is taken for the end of the data."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.engine.exceptions import BatchkitError, PermanentError, StoppedError, UsageError
from tests.support.sqlite_reading import ORDERS, SqliteShop
from tests.support.table_exports import FEW, ONE_TRY, QUICK, TableExport

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 700  # they are read in pages of 100, 400 and 200


class BeforePage:
    """Does something before a page is asked for, once.

    :param page: which page, from 1; each after the first is asked for in two stages.
    :param act: what it does.
    """

    def __init__(self, page: int, act: Callable[[], object]) -> None:
        self.acted = False
        self._left = 2 * page - 2 or 1
        self._act = act

    def __call__(self, statement: str) -> None:
        """Be told of a statement before it runs."""
        if statement.startswith("SELECT") and "LIMIT" in statement:
            self._left -= 1
            if self._left == 0:
                self._act()
                self.acted = True  # an error in the driver's callback reaches nobody


@pytest.fixture
def shop(tmp_path: Path) -> SqliteShop:
    """Make a database whose writers lock readers out."""
    return SqliteShop(tmp_path / "shop.db", ROWS, wal=False)


def spoil(shop: SqliteShop) -> None:
    """Write nonsense over all but the first tenth of the file."""
    size = shop.path.stat().st_size
    with shop.path.open("r+b") as file:
        file.seek(size // 10)
        file.write(b"\xff" * (size - size // 10))


def cut(shop: SqliteShop) -> None:
    """Cut the file off in the middle."""
    os.truncate(shop.path, shop.path.stat().st_size // 2)


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Something that somebody does to the file between two pages of a run.

    :param does: what.
    :param ends: how the leg ends.
    :param says: what it says.
    :param mends: makes the next leg go on to the end; None: nothing does.
    """

    does: Callable[[SqliteShop], object]
    ends: type[BatchkitError]
    says: str
    mends: Callable[[SqliteShop], object] | None = None


TROUBLES = [
    pytest.param(
        Trouble(
            does=lambda shop: shop.run("DROP TABLE orders"),
            ends=UsageError,
            says="no such table: orders; check table",
        ),
        marks=pytest.mark.fault("source-gone", at="sqlite"),
        id="table dropped",
    ),
    pytest.param(
        Trouble(
            does=lambda shop: shop.run("ALTER TABLE orders RENAME TO elsewhere"),
            ends=UsageError,
            says="no such table: orders",
            mends=lambda shop: shop.run("ALTER TABLE elsewhere RENAME TO orders"),
        ),
        marks=pytest.mark.fault("source-gone", at="sqlite"),
        id="table renamed",
    ),
    pytest.param(
        Trouble(
            does=lambda shop: shop.run("ALTER TABLE orders DROP COLUMN note"),
            ends=UsageError,
            says="no such column: orders.note",
        ),
        marks=pytest.mark.fault("source-gone", at="sqlite"),
        id="column dropped",
    ),
    pytest.param(
        Trouble(
            does=lambda shop: shop.run("ALTER TABLE orders RENAME COLUMN note TO remark"),
            ends=UsageError,
            says="no such column: orders.note",
            mends=lambda shop: shop.run("ALTER TABLE orders RENAME COLUMN remark TO note"),
        ),
        marks=pytest.mark.fault("source-gone", at="sqlite"),
        id="column renamed",
    ),
    pytest.param(
        Trouble(does=spoil, ends=PermanentError, says="malformed; restore the file from a backup"),
        marks=pytest.mark.fault("source-gone", at="sqlite"),
        id="file spoilt",
    ),
    pytest.param(
        Trouble(does=cut, ends=PermanentError, says="malformed; restore the file from a backup"),
        marks=pytest.mark.fault("source-gone", at="sqlite"),
        id="file cut off",
    ),
]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_between_two_pages(shop: SqliteShop, trouble: Trouble) -> None:
    """The run fails in one line that names it, and publishes nothing; mended, it goes on where it was."""
    rows = shop.orders()
    strike = BeforePage(2, lambda: trouble.does(shop))
    export = TableExport(ORDERS, shop.connections(before=strike))
    with pytest.raises(trouble.ends, match=trouble.says) as caught:
        export.leg()
    assert strike.acted
    assert "\n" not in str(caught.value)
    export.check_nothing_published()
    if trouble.mends is not None:
        trouble.mends(shop)
        export.leg()
        export.check(rows)


@pytest.mark.fault("source-gone", at="sqlite")
def test_file_that_is_deleted(shop: SqliteShop) -> None:
    """Who has it open reads it to its end; a leg that has to open it says that it is not there."""
    rows = shop.orders()
    strike = BeforePage(2, shop.path.unlink)
    export = TableExport(ORDERS, shop.connections(before=strike))
    export.leg()
    export.check(rows)
    assert strike.acted
    with pytest.raises(UsageError, match="unable to open database file; check the path"):
        TableExport(ORDERS, shop.connections()).leg()
    assert not shop.path.exists()


@pytest.mark.fault("source-gone", at="sqlite")
def test_file_that_another_process_locks(shop: SqliteShop) -> None:
    """It is tried again in the leg; after that the leg ends, and the next goes on where it was."""
    rows = shop.orders()
    with closing(sqlite3.connect(shop.path, isolation_level=None, check_same_thread=False)) as writer:
        lock = BeforePage(2, lambda: writer.execute("BEGIN EXCLUSIVE"))
        export = TableExport(ORDERS, shop.connections(patience=0, before=lock), batch_retry=QUICK)
        export.at_first_retry(lambda: writer.execute("ROLLBACK"))
        export.leg()
        export.check(rows)
        assert "database is locked" in export.heard.named("retry")[0][1]

        lock = BeforePage(2, lambda: writer.execute("BEGIN EXCLUSIVE"))
        export = TableExport(ORDERS, shop.connections(patience=0, before=lock), batch_retry=ONE_TRY)
        with pytest.raises(StoppedError, match="database is locked"):
            export.leg()
        writer.execute("ROLLBACK")
        export.to_the_end()
    export.check(rows)


@pytest.mark.fault("few-records", at="sqlite")
@pytest.mark.parametrize("rows", FEW)
def test_few_rows(tmp_path: Path, rows: int) -> None:
    """None, one, exactly one page, one batch, and one more: all of them, in no more batches than needed."""
    shop = SqliteShop(tmp_path / "few.db", rows)
    export = TableExport(ORDERS, shop.connections())
    assert export.leg().counts["read"] == rows
    export.check(shop.orders())
