"""Rows that a source cannot read: kept as dead letters with all their bytes, through to verify and replay."""

from __future__ import annotations

import base64
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.command_line import environment_of, exported, run


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Make a database with a thousand notes, of which two cannot be read."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT, price REAL)")
        database.executemany(
            "INSERT INTO notes VALUES (?, ?, ?)",
            [(number, f"note {number}", 1.5) for number in range(1, 1001)],
        )
        database.execute("UPDATE notes SET text = CAST(X'68C3A9FF' AS TEXT) WHERE id = 500")
        database.execute("UPDATE notes SET price = 9e999 WHERE id = 777")
    return path


@pytest.mark.fault("poison", at="sqlite")
def test_unreadable_rows_are_kept_and_nothing_else_is_lost(shop: Path, tmp_path: Path) -> None:
    """Output and letters together are the table; verify agrees; a replay leaves the letters alone."""
    environment = environment_of(tmp_path / "state")
    output, letters = f"file://{tmp_path}/out", f"file://{tmp_path}/letters"
    source = f"sqlite://{shop}?table=notes"
    given_up = ("--dead-letters", letters, "--error-budget", "2")

    done = run("copy", source, output, *given_up, "--no-progress", environment=environment)
    assert done.returncode == 0, done.stderr
    assert {record["id"] for record in exported(tmp_path / "out")} == {*range(1, 1001)} - {500, 777}
    counts = json.loads((tmp_path / "out" / "manifest.json").read_bytes())["counts"]
    assert (counts["read"], counts["written"], counts["dead_lettered_by_source"]) == (1000, 998, 2)

    verified = run("verify", output, environment=environment)
    assert verified.returncode == 0, verified.stdout + verified.stderr

    text, price = (
        json.loads(
            run("dead-letters", "show", letters, "--id", id_, "--records", environment=environment).stdout
        )
        for id_ in ("500", "777")
    )
    assert [(letter["id"], letter["stage"]) for letter in (text, price)] == [
        ("500", "source"),
        ("777", "source"),
    ]
    assert text["record"]["readable"] == {"id": 500, "price": 1.5}
    assert base64.b64decode(text["record"]["unreadable"]["text"]["base64"]) == b"h\xc3\xa9\xff"
    assert price["record"] == {
        "readable": {"id": 777, "text": "note 777"},
        "unreadable": {"price": {"python": "inf"}},
    }

    replayed = run("dead-letters", "replay", letters, output, environment=environment)
    assert replayed.returncode == 0, replayed.stderr
    assert "2 letters are left alone: their records could not be read" in replayed.stderr
    still = run("dead-letters", "list", letters, "--json", environment=environment)
    assert json.loads(still.stdout)["letters"] == 2
    assert run("verify", output, environment=environment).returncode == 0
