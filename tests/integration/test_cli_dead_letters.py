"""``batchkit dead-letters`` as a person types it."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.cli.connections import EnvironmentConnections
from airflow_batchkit.cli.systems import dead_letters_at
from airflow_batchkit.cli.urls import parse
from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import ErrorBudget
from airflow_batchkit.testing.doubles import MemoryStore
from tests.support.command_line import environment_of, exported, run
from tests.support.object_storage import Place, S3Connections
from tests.support.replay_sweep import World, broken, orders

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

DAG_FILE = """
import os
from datetime import UTC, datetime
from airflow.sdk import DAG
from airflow_batchkit import (
    BatchPipelineOperator, DeadLetters, ErrorBudget, ObjectStorageSink, RecordError, SqlSource
)

FOLDER = os.environ["TEST_FOLDER"]

def check(order):
    if order["amount"] < 0 and not os.path.exists(f"{FOLDER}/fixed"):
        raise RecordError("a negative amount")
    return {**order, "checked": True}

with DAG("shop", schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=UTC)):
    BatchPipelineOperator(
        task_id="export",
        source=SqlSource(conn_id="shop", table="orders"),
        sink=ObjectStorageSink(url=f"file://{FOLDER}/data/ds={{{{ ds }}}}"),
        transform=check,
        error_budget=ErrorBudget(max_dead_letters=10),
        dead_letters=DeadLetters(f"file://{FOLDER}/letters"),
    )
    BatchPipelineOperator(
        task_id="plain",
        source=SqlSource(conn_id="shop", table="orders"),
        sink=ObjectStorageSink(url=f"file://{FOLDER}/plain"),
    )
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Publish an output that lacks every other order."""
    place = Place(url=f"file://{tmp_path}/out", connections=S3Connections(endpoint_url=""))
    world = World(place, tmp_path, "world")
    world.export()
    return world


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Give the variables of a process with a state of its own."""
    return environment_of(tmp_path / "state")


def test_list_counts_by_kind_of_error(world: World, environment: dict[str, str]) -> None:
    """A table for people, a line of JSON for machines; an empty place is said to be empty."""
    url = f"{world.place.url}/letters"

    said = run("dead-letters", "list", url, environment=environment)
    assert said.returncode == 0, said.stderr
    heading, row = said.stdout.splitlines()
    assert heading.split()[:5] == ["JOB", "RUN", "ERROR", "STAGE", "LETTERS"]
    assert row.split()[:5] == ["dag.export", "run-1", "RecordError", "transform", "12"]
    (line,) = run("dead-letters", "list", url, "--json", environment=environment).stdout.splitlines()
    found = json.loads(line)
    assert (found["letters"], found["replays"]) == (12, 0)

    said = run("dead-letters", "list", f"{world.place.url}/none", environment=environment)
    assert (said.returncode, said.stdout) == (0, f"no dead letters at {world.place.url}/none\n")


def test_show_prints_the_data_only_when_asked(world: World, environment: dict[str, str]) -> None:
    """A letter in full has the error and its place, and the record itself only with --records."""
    url = f"{world.place.url}/letters"

    said = run("dead-letters", "show", url, "--id", "4", environment=environment)
    letter = json.loads(said.stdout)
    assert (letter["id"], letter["message"]) == ("4", "an even order")
    assert "record" not in letter

    said = run("dead-letters", "show", url, "--id", "4", "--records", environment=environment)
    assert json.loads(said.stdout)["record"] == {"number": "4", "amount": 1.5}
    said = run("dead-letters", "show", url, "--limit", "2", environment=environment)
    assert said.stdout.count('"id"') == 2
    assert "there are more" in said.stderr


def test_replay_completes_the_output_once(world: World, environment: dict[str, str]) -> None:
    """What was given up is added; the same command again finds nothing to do; the output verifies."""
    letters, data = f"{world.place.url}/letters", f"{world.place.url}/data"

    said = run("dead-letters", "replay", letters, data, "--id", "4", "--local", environment=environment)
    assert said.returncode == 0, said.stderr
    assert len(world.picture()["lines"]) == 12
    said = run("dead-letters", "replay", letters, data, "--id", "4", environment=environment)
    assert said.returncode == 0, said.stderr
    assert len(world.picture()["lines"]) == 13
    for number in range(2):
        said = run("dead-letters", "replay", letters, data, environment=environment)
        assert said.returncode == 0, said.stderr
        assert ("nothing to do" in said.stdout) is (number == 1)
    said = run("verify", data, "--dead-letters", letters, environment=environment)
    assert said.returncode == 0, said.stdout
    assert len(world.picture()["lines"]) == 24


def test_purge_asks_and_says_what_it_removed(world: World, environment: dict[str, str]) -> None:
    """Without --yes nothing goes; what is younger stays; --all leaves nothing."""
    url = f"{world.place.url}/letters"

    said = run("dead-letters", "purge", url, "--all", environment=environment)
    assert said.returncode == 1
    said = run("dead-letters", "purge", url, "--older-than", "1d", environment=environment)
    assert said.stdout == "nothing to remove\n"
    assert len(world.picture()["letters"]) == 12
    said = run("dead-letters", "purge", url, "--all", "--yes", environment=environment)
    assert "removed 12 letters of 1 runs" in said.stdout
    said = run("dead-letters", "list", url, environment=environment)
    assert said.stdout.startswith("no dead letters")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("replay", "file:///x"), "give either PLACE_URL and SINK_URL, or --task"),
        (("purge", "file:///x"), "either --older-than AGE or --all"),
        (("list", "sqlite:///x/y"), "there is no SQLite file"),
        (("replay", "file:///{}/a", "file:///{}/b"), "nothing is published"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: tuple[str, ...], said: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """What cannot work ends with exit code 2, in one line that says what to give."""
    done = run(
        "dead-letters",
        *(argument.format(str(tmp_path).lstrip("/")) for argument in arguments),
        environment=environment,
    )

    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1]


@dataclass(frozen=True)
class Box:
    """A place for dead letters as a person types it.

    :param url: of the place.
    :param environment: of the process that gets there.
    """

    url: str
    environment: dict[str, str]

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the command, which ends with this exit code."""
        done = run(*arguments, environment=self.environment)
        assert done.returncode == code, done.stderr
        return done

    def listed(self) -> list[tuple[str, str, int, bool]]:
        """Return run, kind of error, number of letters and completeness, as they are listed."""
        said = self.run("dead-letters", "list", self.url, "--json").stdout
        rows = map(json.loads, said.splitlines())
        return [(row["run"], row["error_type"], row["letters"], row["complete"]) for row in rows]


@pytest.fixture
def box(request: pytest.FixtureRequest, tmp_path: Path, environment: dict[str, str]) -> Iterator[Box]:
    """Give an empty place of a kind."""
    if request.param == "s3":
        server, bucket = request.getfixturevalue("s3_server"), request.getfixturevalue("bucket")
        keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
        address = f"endpoint_url={server.endpoint_url}&region_name=us-east-1&addressing_style=path"
        yield Box(f"s3://{bucket}/letters?{address}", {**environment, **keys})
    elif request.param == "elasticsearch":
        server = request.getfixturevalue("elasticsearch_server")
        index = f"letters-{secrets.token_hex(4)}"
        # The connection's name has to be in the command that is printed, too.
        connection = {"AIRFLOW_CONN_SEARCH": json.dumps({"conn_type": "elasticsearch"})}
        yield Box(f"elasticsearch+{server.url}/{index}?conn_id=search", {**environment, **connection})
        server.request("DELETE", f"/{index}?ignore_unavailable=true")
    elif request.param == "sqlite":
        yield Box(f"sqlite://{tmp_path}/the%20letters.db?table=dead%20letters", environment)
    else:
        server, database = request.getfixturevalue("postgres_server"), request.getfixturevalue("database")
        url = f"postgresql://127.0.0.1:{server.port}/{database}?table=Dead+%26+buried"
        yield Box(url, {**environment, "PGUSER": "admin"})


ELASTICSEARCH = pytest.param("elasticsearch", marks=pytest.mark.elasticsearch)
POSTGRES = pytest.param("postgres", marks=pytest.mark.postgres)


@pytest.mark.parametrize(
    "box", ["sqlite", ELASTICSEARCH, POSTGRES, pytest.param("s3", marks=pytest.mark.s3)], indirect=True
)
def test_a_copy_keeps_letters_anywhere(box: Box, tmp_path: Path) -> None:
    """Listed and shown, also by the command that a failed copy prints, and removed; in each kind of place."""
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT)")
        database.executemany(
            "INSERT INTO orders VALUES (?, CAST(? AS TEXT))",
            [(n, b"\xc3" if n < 3 else b"") for n in range(9)],
        )
    copy = ("copy", f"sqlite://{tmp_path}/shop.db?table=orders", f"file://{tmp_path}/out")

    failed = box.run(*copy, "--dead-letters", box.url, "--error-budget", "2", code=3)
    (command,) = re.findall(r" to see them: batchkit (.*); a clear", failed.stderr)
    shown = box.run(*shlex.split(command))
    assert re.findall(r'"id": "(\d+)"', shown.stdout) == ["0", "1", "2"]
    assert [row[1:] for row in box.listed()] == [("UnreadableRecord", 3, False)]

    box.run(*copy, "--dead-letters", box.url, "--error-budget", "3", "--restart")
    assert [row[1:] for row in box.listed()][-1:] == [("UnreadableRecord", 3, True)]
    shown = box.run("dead-letters", "show", box.url, "--id", "1", "--limit", "1", "--records")
    assert json.loads(shown.stdout)["record"]["readable"] == {"id": 1}

    said = box.run("dead-letters", "purge", box.url, "--all", "--yes").stdout
    assert "removed" in said
    assert box.run("dead-letters", "list", box.url).stdout == f"no dead letters at {box.url}\n"


@pytest.mark.parametrize("box", ["sqlite", ELASTICSEARCH, POSTGRES], indirect=True)
def test_letters_anywhere_complete_the_output(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay from an index or a table adds to the output once, and leaves nothing to do."""
    for name, value in box.environment.items():
        monkeypatch.setenv(name, value)
    Pipeline(
        Job(
            name="dag.export",
            source=IterableSource(records=orders, key="number"),
            sink=ObjectStorageSink(url=f"file://{tmp_path}/out", compression="gzip"),
            transform=broken,
            error_budget=ErrorBudget(max_dead_letters=12),
            dead_letters=dead_letters_at(parse(box.url), create=True),
        ),
        identity=RunIdentity(run="run-1"),
        store=MemoryStore(),
        key="dag.export",
        connections=EnvironmentConnections(),
    ).run()
    assert box.listed() == [("run-1", "RecordError", 12, True)]
    replay = ("dead-letters", "replay", box.url, f"file://{tmp_path}/out")

    box.run(*replay)
    assert "nothing to do" in box.run(*replay).stdout

    assert box.listed() == []
    numbers = sorted(int(order["number"]) for order in exported(tmp_path / "out"))
    assert numbers == list(range(24))


def test_a_mistyped_database_is_not_made(tmp_path: Path, environment: dict[str, str]) -> None:
    """Who looks for letters in a file that is not there is told so, and gets no empty one."""
    done = run("dead-letters", "list", f"sqlite://{tmp_path}/none.db", environment=environment)

    assert done.returncode == 2
    assert "there is no SQLite file" in done.stderr
    assert not (tmp_path / "none.db").exists()


@pytest.mark.airflow
def test_replay_takes_place_sink_and_transform_from_a_task(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """After a fix in the DAG file, its own transform and sink complete its output."""
    (tmp_path / "shop.py").write_text(DAG_FILE)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL)")
        database.executemany("INSERT INTO orders VALUES (?, ?)", [(n, 5 - n) for n in range(10)])
    variables = {
        **environment,
        "TEST_FOLDER": str(tmp_path),
        "AIRFLOW_CONN_SHOP": json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "shop.db")}),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
    }
    file, date = str(tmp_path / "shop.py"), ("--logical-date", "2026-11-22")
    done = run("run", file, "export", *date, environment=variables)
    assert done.returncode == 0, done.stderr
    (tmp_path / "fixed").touch()

    done = run("dead-letters", "replay", "--task", file, "export", *date, environment=variables)

    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = exported(tmp_path / "data" / "ds=2026-11-22")
    assert sorted(order["id"] for order in found) == list(range(10))
    assert all(order["checked"] for order in found)
    done = run("dead-letters", "replay", "--task", file, "plain", environment=variables)
    assert done.returncode == 2
    assert "has no dead_letters" in done.stderr
