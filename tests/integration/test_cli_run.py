"""``batchkit run``: tasks of DAG files by hand, with real signals, and no trace of an Airflow."""

from __future__ import annotations

import gzip
import json
import shlex
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command_line import environment_of, exported, run, start, wait_for

if TYPE_CHECKING:
    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.s3 import S3Server

DAGS = Path(__file__).parents[2] / "dags"
ROWS = 6_000
DAG_FILE = """
import os
from datetime import UTC, datetime
from airflow.sdk import DAG, CronDataIntervalTimetable, Param, task
from airflow_batchkit import BatchPipelineOperator, BatchPolicy, ObjectStorageSink, RateLimit, SqlSource

FOLDER = os.environ["TEST_FOLDER"]
RATE = float(os.environ.get("TEST_RATE", "100000"))

def alert(context):
    open(f"{FOLDER}/alert", "w").close()

with DAG(
    "shop",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    params={"table": Param("orders", type="string"), "start_at": Param(None, type=["null", "string"])},
    default_args={"on_failure_callback": alert, "on_success_callback": alert},
):
    BatchPipelineOperator(
        task_id="export",
        source=SqlSource(
            conn_id="shop", table="{{ params.table }}", where="day < '{{ data_interval_end | ds }}'"
        ),
        sink=ObjectStorageSink(url=f"file://{FOLDER}/{{{{ var.value.area }}}}/ds={{{{ ds }}}}"),
        batch=BatchPolicy(max_records=500),
        throttle=RateLimit(records_per_second=RATE),
        start_at="{{ params.start_at }}",
    )

    @task
    def tables():
        return ["orders"]

    @task.batch_pipeline(
        source=SqlSource(conn_id="shop", table="{{ ti.xcom_pull(task_ids='tables') }}"),
        sink=ObjectStorageSink(url=f"file://{FOLDER}/cities"),
    )
    def cities(order):
        return {"city": order["city"]} if order["id"] <= 10 else None

    tables()
    cities()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Give the variables of a laptop: a home of the test's own, nothing of Airflow but two settings."""
    kept = environment_of(tmp_path / "state")
    for name in [name for name in kept if name.startswith("AIRFLOW")]:
        del kept[name]
    return {
        **kept,
        "HOME": str(tmp_path / "home"),
        "TEST_FOLDER": str(tmp_path / "out"),
        "AIRFLOW_CONN_SHOP": json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "shop.db")}),
        "AIRFLOW_VAR_AREA": "lake",
    }


@pytest.fixture
def dag_file(tmp_path: Path) -> str:
    """Give a DAG file, and the table of 6,000 orders that it reads."""
    (tmp_path / "home").mkdir()
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, day TEXT, city TEXT)")
        database.executemany(
            "INSERT INTO orders VALUES (?, '2026-11-22', ?)", ((n, f"Zürich {n}") for n in range(1, ROWS + 1))
        )
    file = tmp_path / "my dags.py"
    file.write_text(DAG_FILE)
    return str(file)


def assert_whole(folder: Path) -> None:
    """Check that every order was exported once, in order, and that nothing is left over."""
    assert [record["id"] for record in exported(folder)] == list(range(1, ROWS + 1))
    named = {part["key"] for part in json.loads((folder / "manifest.json").read_bytes())["parts"]}
    assert {file.name for file in folder.rglob("part-*")} == named


def test_a_task_runs_without_airflow_around_it(
    dag_file: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """The task of a date is run once; again it is only reported; no database, no config, no callback."""
    command = ("run", dag_file, "export", "--logical-date", "2026-11-22", "--no-progress")
    done = run(*command, environment=environment)
    assert done.returncode == 0, done.stderr
    first = done.stderr.splitlines()[0]
    assert first.startswith("shop.export by hand: run manual__2026-11-22T00:00:00+00:00, ")
    assert "data interval 2026-11-22 00:00:00+00:00 to 2026-11-23" in first
    assert "no callbacks" in first
    assert f"{ROWS:,}" in done.stdout
    assert_whole(tmp_path / "out/lake/ds=2026-11-22")

    again = run(*command, environment=environment)
    assert again.returncode == 0
    assert "complete already; --restart does it anew" in again.stderr
    assert again.stdout == done.stdout

    anew = run(*command, "--restart", environment=environment)
    assert anew.returncode == 0, anew.stderr
    assert "nothing was done" not in anew.stderr
    assert_whole(tmp_path / "out/lake/ds=2026-11-22")

    assert not list((tmp_path / "home").iterdir())
    assert not (tmp_path / "out/alert").exists()
    listed = run("checkpoints", "list", environment=environment).stdout
    assert "shop.export.by-hand-manual__2026-11-22T00_00_00_00_00" in listed


def test_a_killed_run_goes_on(dag_file: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """After SIGKILL the same command goes on from the last checkpoint, and leaves one whole output."""
    command = ("run", dag_file, "export", "--logical-date", "2026-11-22")
    process = start(*command, environment={**environment, "TEST_RATE": "2000"})
    with process:
        wait_for(process, "records/s")
        process.kill()
        process.communicate(timeout=30)
    done = run(*command, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "resumes after" in done.stderr
    assert_whole(tmp_path / "out/lake/ds=2026-11-22")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(
    dag_file: str, tmp_path: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    """Ctrl-C or SIGTERM stops at the boundary with exit code 4; the command that is printed goes on."""
    arguments = ("run", dag_file, "export", "--logical-date", "2026-11-22", "--restart", "--no-progress")
    process = start(*arguments, environment={**environment, "TEST_RATE": "1500"})
    with process:
        wait_for(process, "records/s")
        process.send_signal(number)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 4
    assert "Traceback" not in rest
    said = shlex.split(rest.strip().splitlines()[-1].partition("to go on: ")[2])
    assert said[:3] == ["batchkit", "run", dag_file]
    assert "--restart" not in said
    done = run(*said[1:], environment=environment)
    assert done.returncode == 0, done.stderr
    assert "resumes after" in done.stderr
    assert_whole(tmp_path / "out/lake/ds=2026-11-22")


def test_local_plan_and_part_write_no_whole_output(
    dag_file: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """--local writes nothing, --plan only says what it would do, --start-at never replaces a whole output."""
    command = ("run", dag_file, "export", "--logical-date", "2026-11-22")
    local = run(*command, "--local", environment=environment)
    assert local.returncode == 0, local.stderr
    assert "write of record '1' skipped because we are in LOCAL mode" in local.stderr
    plan = run(*command, "--plan", environment=environment)
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["total"] == ROWS
    assert not (tmp_path / "out").exists()
    part = run(*command, "--start-at", "5990", environment=environment)
    assert part.returncode == 0, part.stderr
    (folder,) = (tmp_path / "out/lake/ds=2026-11-22/_partial").iterdir()
    assert [record["id"] for record in exported(folder)] == list(range(5_990, ROWS + 1))


def test_another_conf_is_another_run(dag_file: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """What a run with one param left behind does not answer for a run with another."""
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.execute("CREATE TABLE returns (id INTEGER PRIMARY KEY, day TEXT, city TEXT)")
        database.execute("INSERT INTO returns SELECT * FROM orders LIMIT 7")
    command = ("run", dag_file, "export", "--logical-date", "2026-11-22", "--var", "area=shop")
    assert run(*command, environment=environment).returncode == 0
    done = run(*command, "--param", "table=returns", environment=environment)
    assert done.returncode == 0, done.stderr
    assert len(exported(tmp_path / "out/shop/ds=2026-11-22")) == 7


def test_a_decorated_task_gets_the_given_xcom(
    dag_file: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """@task.batch_pipeline runs too; what it needs of another task is asked for, then taken."""
    refused = run("run", dag_file, "cities", environment=environment)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "--xcom tables=JSON" in line
    done = run("run", dag_file, "cities", "--xcom", 'tables="orders"', environment=environment)
    assert done.returncode == 0, done.stderr
    assert [record["city"] for record in exported(tmp_path / "out/cities")][:2] == ["Zürich 1", "Zürich 2"]


def test_other_tasks_and_mistakes_are_one_line(dag_file: str, environment: dict[str, str]) -> None:
    """What cannot be run is refused in one line with exit code 2."""
    other = run("run", dag_file, "tables", environment=environment)
    no_date = run("run", dag_file, "export", environment=environment)
    typo = run("run", dag_file, "export", "--param", "tabel=x", environment=environment)
    for refused in (other, no_date, typo):
        assert (refused.returncode, refused.stdout) == (2, "")
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert "airflow tasks test shop tables" in other.stderr
    assert "give --logical-date" in no_date.stderr
    assert "known: start_at, table" in typo.stderr


def test_the_users_own_configuration_is_read_and_left_alone(
    dag_file: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """An airflow.cfg decides what it decides in Airflow; it is not rewritten, and its database not opened."""
    home = tmp_path / "airflow"
    home.mkdir()
    config = f"[database]\nsql_alchemy_conn = sqlite:///{home}/airflow.db\n[batchkit]\nmax_legs = many\n"
    (home / "airflow.cfg").write_text(config)
    done = run(
        *("run", dag_file, "export", "--logical-date", "2026-11-22"),
        environment={**environment, "AIRFLOW_HOME": str(home)},
    )
    assert done.returncode == 2
    assert "[batchkit] max_legs = 'many': must be a number" in done.stderr
    assert [file.name for file in home.iterdir()] == ["airflow.cfg"]
    assert (home / "airflow.cfg").read_text() == config


@pytest.mark.elasticsearch
@pytest.mark.s3
def test_the_shipped_example_runs_by_hand(
    elasticsearch_server: ElasticsearchEndpoint, s3_server: S3Server, environment: dict[str, str]
) -> None:
    """The nightly export of a date exports the orders of that day from a real Elasticsearch to a bucket."""
    elasticsearch_server.request("PUT", "/orders", {"settings": {"number_of_replicas": 0}})
    with s3_server.client() as s3:
        s3.create_bucket(Bucket="lake")
    try:
        for day in (21, 22, 23):
            for hour in range(10):
                document = {"created_at": f"2026-11-{day}T0{hour}:00:00Z"}
                elasticsearch_server.request("PUT", f"/orders/_doc/{day}-{hour}", document)
        connection = {"conn_type": "elasticsearch", "host": elasticsearch_server.url}
        done = run(
            *("run", str(DAGS / "example_elasticsearch_to_s3.py"), "export_orders"),
            *("--logical-date", "2026-11-22"),
            environment={
                **environment,
                "HOME": environment["XDG_STATE_HOME"],
                "AIRFLOW_CONN_ELASTICSEARCH_DEFAULT": json.dumps(connection),
                "AIRFLOW_CONN_AWS_DEFAULT": s3_server.airflow_connection(),
            },
        )
        assert done.returncode == 0, done.stderr
        prefix = "orders/ds=2026-11-22"
        with s3_server.client() as s3:
            manifest = json.load(s3.get_object(Bucket="lake", Key=f"{prefix}/manifest.json")["Body"])
            bodies = [
                s3.get_object(Bucket="lake", Key=f"{prefix}/{part['key']}")["Body"].read()
                for part in manifest["parts"]
            ]
        records = [json.loads(line) for body in bodies for line in gzip.decompress(body).splitlines()]
        assert sorted(record["_id"] for record in records) == [f"22-{hour}" for hour in range(10)]
    finally:
        elasticsearch_server.request("DELETE", "/orders")
        s3_server.empty("lake")
