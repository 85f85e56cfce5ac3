"""A call that fails, or whose answer is lost, at every side effect of a run from SQLite to files."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.engine.exceptions import BatchkitError, PermanentError, TransientError
from airflow_batchkit.engine.failpoints import probing
from tests.support.fault_table import FULL
from tests.support.kill_sweep import Sweep, picture, run_until_done
from tests.support.legs import Death
from tests.support.troubles import Failing

if TYPE_CHECKING:
    from pathlib import Path

ORDERS = 40
STEP = 1 if FULL else 5


@pytest.mark.fault("answer-lost", at="file")
@pytest.mark.parametrize("error", [TransientError("503"), PermanentError("403")], ids=repr)
def test_failed_at_any_effect_the_run_ends_as_if_nothing_had_been(
    tmp_path: Path, error: BatchkitError
) -> None:
    """Undone, or done with the answer lost; to pass, or to be mended before the next leg."""
    database = sqlite3.connect(tmp_path / "orders.db")
    with database:
        database.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY, customer TEXT NOT NULL)")
        database.executemany("INSERT INTO orders VALUES (?, 'someone')", [(each,) for each in range(ORDERS)])
    database.close()
    sweep = Sweep(folder=str(tmp_path), source="sqlite", target="file")
    with Death().lurking() as counting:
        run_until_done(sweep, "reference")
    expected, moments = picture(sweep, "reference"), counting.moments
    assert expected["counts"]["read"] == ORDERS
    assert "before sink.put" in moments

    for moment in range(1, len(moments) + 1, STEP):
        name = f"moment-{moment}"
        with probing(Failing(moment, error)), contextlib.suppress(type(error)):
            run_until_done(sweep, name)
        run_until_done(sweep, name)
        assert picture(sweep, name) == expected, f"{error!r} at {moment} ({moments[moment - 1]})"
