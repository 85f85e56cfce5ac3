"""Progress beside the output: Airflow and the command line go on from each other's, kill after kill."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command_line import environment_of, exported, run, start, wait_for
from tests.support.dag_runs import DagRun, DagRuns, dag_runs
from tests.support.targets import checkpoint_in, let_lease_run_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.s3 import S3Server

ROWS = 6_000
ORDERS = [{"_id": str(n), "id": n, "city": f"Zürich {n}"} for n in range(1, ROWS + 1)]
DATE = "2026-11-22"
AT = f"{DATE}T00:00:00+00:00"
DAG_FILE = """
import os
from datetime import UTC, datetime
from airflow.sdk import DAG, CronDataIntervalTimetable
from airflow_batchkit import BatchPipelineOperator, BatchPolicy, ObjectStorageSink, RateLimit, SqlSource

with DAG(
    "shop_at_target",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
) as dag:
    BatchPipelineOperator(
        task_id="export",
        source=SqlSource(conn_id="shop", table="orders"),
        sink=ObjectStorageSink(url=f"file://{os.environ['TEST_FOLDER']}"),
        batch=BatchPolicy(max_records=500),
        throttle=RateLimit(records_per_second=float(os.environ.get("TEST_RATE", "100000"))),
        checkpoint_store="target",
    )
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Give the variables of a process that keeps its state in the test's own folder."""
    return {
        **environment_of(tmp_path / "state"),
        "TEST_FOLDER": str(tmp_path / "out"),
        "AIRFLOW_CONN_SHOP": json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "shop.db")}),
    }


@pytest.fixture
def shop(tmp_path: Path) -> str:
    """Give the URL of a table of 6,000 orders."""
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, city TEXT)")
        database.executemany(
            "INSERT INTO orders VALUES (?, ?)", ((order["id"], order["city"]) for order in ORDERS)
        )
    return f"sqlite://{tmp_path}/shop.db?table=orders"


@pytest.fixture
def dag_file(shop: str, tmp_path: Path, airflow_database: None) -> str:
    """Give a DAG file whose task exports the orders."""
    del shop, airflow_database
    file = tmp_path / "dags.py"
    file.write_text(DAG_FILE)
    return str(file)


@pytest.fixture(scope="module")
def airflow(airflow_database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagRuns]:
    """Give what starts runs in Airflow, each in a process that can be killed."""
    del airflow_database
    with dag_runs(tmp_path_factory.mktemp("airflow")) as runs:
        yield runs


def slow(environment: dict[str, str]) -> dict[str, str]:
    """Have the task take its time."""
    return {**environment, "TEST_RATE": "2000"}


def killed(process: subprocess.Popen[str]) -> None:
    """Kill a process once it has made progress."""
    with process:
        wait_for(process, "records/s")
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)


def killed_in_airflow(run: DagRun) -> None:
    """Kill a run once it has made progress."""
    run.wait_for("records/s")
    run.kill()


def by_hand(dag_file: str) -> tuple[str, ...]:
    """Return the command that runs the task of the date by hand."""
    return ("run", dag_file, "export", "--logical-date", DATE, "--no-progress")


def assert_whole(folder: Path) -> None:
    """Check that every order was exported once, as it is, in order, and that nothing is left over."""
    assert exported(folder) == ORDERS
    named = {part["key"] for part in json.loads((folder / "manifest.json").read_bytes())["parts"]}
    assert {file.name for file in folder.rglob("part-*")} == named


@pytest.mark.airflow
def test_by_hand_goes_on_where_airflow_was_killed_and_airflow_reports_it(
    airflow: DagRuns, dag_file: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Refused while Airflow's lease lasts, then it goes on; Airflow's next try finds the run complete."""
    killed_in_airflow(airflow.start(dag_file, AT, slow(environment)))
    refused = run(*by_hand(dag_file), environment=environment)
    assert refused.returncode == 1
    assert "is held by run 20261122T000000Z of 'shop_at_target.export'" in refused.stderr
    assert "started by Airflow" in refused.stderr

    let_lease_run_out(tmp_path / "out")
    killed(start(*by_hand(dag_file), environment=slow(environment)))
    done = run(*by_hand(dag_file), environment=environment)
    assert done.returncode == 0, done.stderr
    assert "(leg 3)" in done.stderr
    assert_whole(tmp_path / "out")

    manifest = (tmp_path / "out" / "manifest.json").read_bytes()
    again = airflow.start(dag_file, AT, environment)
    result = again.ended()
    assert result["state"] == "success", again.printed
    assert result["value"]["counts"]["written"] == ROWS
    assert result["value"]["legs"] == 3
    assert (tmp_path / "out" / "manifest.json").read_bytes() == manifest


@pytest.mark.airflow
def test_airflow_goes_on_where_the_hand_run_was_killed(
    airflow: DagRuns, dag_file: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Refused while the hand run's lease lasts, then it goes on; by hand it is only reported after that."""
    killed(start(*by_hand(dag_file), environment=slow(environment)))
    waiting = airflow.start(dag_file, AT, environment)
    waiting.wait_for("up_for_reschedule")
    assert "started by batchkit on" in waiting.printed
    waiting.kill()

    let_lease_run_out(tmp_path / "out")
    again = airflow.start(dag_file, AT, environment)
    result = again.ended()
    assert result["state"] == "success", again.printed
    assert result["value"]["legs"] == 2
    assert_whole(tmp_path / "out")
    reported = run(*by_hand(dag_file), environment=environment)
    assert reported.returncode == 0, reported.stderr
    assert "complete already" in reported.stderr


@pytest.mark.airflow
def test_copy_goes_on_with_airflows_run(
    airflow: DagRuns, dag_file: str, shop: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Same source, query, format and target: the copy finishes Airflow's run, which reports it as its own."""
    killed_in_airflow(airflow.start(dag_file, AT, slow(environment)))
    let_lease_run_out(tmp_path / "out")
    copy = ("copy", shop, f"file://{tmp_path}/out", "--checkpoint", "target", "--no-progress")

    other = run(*copy, "--compression", "none", environment=environment)
    assert other.returncode == 1
    assert "changed since the checkpoint: format;" in other.stderr

    done = run(*copy, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "(leg 2)" in done.stderr
    assert_whole(tmp_path / "out")
    again = airflow.start(dag_file, AT, environment)
    result = again.ended()
    assert result["state"] == "success", again.printed
    assert result["value"]["job"] == "shop_at_target.export"
    assert result["value"]["legs"] == 2

    another = run(*copy, environment=environment)
    assert another.returncode == 2
    assert "belongs to the job 'shop_at_target.export'" in another.stderr


@pytest.mark.airflow
def test_airflow_goes_on_with_a_copy(
    airflow: DagRuns, dag_file: str, shop: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """What a copy began, the task finishes under its own name, and its next try finds that."""
    copy = ("copy", shop, f"file://{tmp_path}/out", "--checkpoint", "target", "--no-progress")
    killed(start(*copy, "--max-records-per-batch", "500", "--rate", "2000", environment=environment))
    let_lease_run_out(tmp_path / "out")
    again = airflow.start(dag_file, AT, environment)
    result = again.ended()
    assert result["state"] == "success", again.printed
    assert "that 'copy " in again.printed
    assert result["value"]["legs"] == 2
    assert_whole(tmp_path / "out")
    assert checkpoint_in(tmp_path / "out").job == "shop_at_target.export"
    assert airflow.start(dag_file, AT, environment).ended() == result


@pytest.mark.fault("two-at-once", at="file")
def test_two_copies_at_once_on_one_prefix(shop: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """One runs; the other, on this machine or elsewhere, says who holds the target, and disturbs nothing."""
    command = (
        *("copy", shop, f"file://{tmp_path}/out", "--checkpoint", "target"),
        *("--max-records-per-batch", "500", "--rate", "2000", "--no-progress"),
    )
    process = start(*command, environment=environment)
    with process:
        wait_for(process, "records/s")
        here = run(*command, environment=environment)
        elsewhere = run(*command, environment=environment_of(tmp_path / "another home"))
        process.communicate(timeout=60)
    assert (here.returncode, elsewhere.returncode) == (1, 1)
    assert f"another batchkit process on this machine ({process.pid})" in here.stderr
    assert "is held by run" in elsewhere.stderr
    assert "started by batchkit on" in elsewhere.stderr
    assert len(elsewhere.stderr.strip().splitlines()[-1]) < 600
    assert process.returncode == 0
    assert_whole(tmp_path / "out")


@pytest.mark.fault("zombie", at="file")
def test_a_frozen_copy_that_wakes_up_changes_nothing(
    shop: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """SIGSTOP, the lease runs out, another machine finishes the run, SIGCONT: superseded, and it says so."""
    command = (
        *("copy", shop, f"file://{tmp_path}/out", "--checkpoint", "target"),
        *("--max-records-per-batch", "500", "--no-progress"),
    )
    process = start(*command, "--rate", "2000", environment=environment)
    with process:
        wait_for(process, "records/s")
        process.send_signal(signal.SIGSTOP)
        try:
            let_lease_run_out(tmp_path / "out")
            done = run(*command, environment=environment_of(tmp_path / "another home"))
            assert done.returncode == 0, done.stderr
            manifest = (tmp_path / "out" / "manifest.json").read_bytes()
        finally:
            process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stops here" in said
    assert (tmp_path / "out" / "manifest.json").read_bytes() == manifest
    assert checkpoint_in(tmp_path / "out").legs == 2
    # What it had in its hands it may have staged; the next publication removes that.
    assert exported(tmp_path / "out") == ORDERS


@pytest.mark.fault("checkpoint-damaged", at="file")
def test_a_checkpoint_removed_under_a_running_copy_stops_it(
    shop: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """It says so in one line and exits non-zero; the next copy begins anew and leaves one whole output."""
    command = ("copy", shop, f"file://{tmp_path}/out", "--checkpoint", "target", "--no-progress")
    process = start(*command, "--max-records-per-batch", "500", "--rate", "1500", environment=environment)
    with process:
        wait_for(process, "records/s")
        removed = run(
            "checkpoints", "clear", "--target", f"file://{tmp_path}/out", "--yes", environment=environment
        )
        _, said = process.communicate(timeout=60)
    assert removed.stdout.splitlines()[-1] == "removed 1"
    assert process.returncode == 1
    assert "was removed while the run went on; it stops here, the next leg begins anew" in said
    let_lease_run_out(tmp_path / "out")
    done = run(*command, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "resumes after" not in done.stderr
    assert_whole(tmp_path / "out")


@pytest.mark.s3
def test_progress_in_a_bucket(
    shop: str, environment: dict[str, str], s3_server: S3Server, bucket: str
) -> None:
    """A killed copy goes on from the bucket alone: another home, same target; and it can be listed there."""
    access = {
        "AWS_ENDPOINT_URL": s3_server.endpoint_url,
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    target = f"s3://{bucket}/orders"
    command = ("copy", shop, target, "--checkpoint", "target", "--max-records-per-batch", "500")
    killed(start(*command, "--rate", "2000", "--no-progress", environment={**environment, **access}))
    listed = run("checkpoints", "list", "--target", target, environment={**environment, **access})
    assert "running" in listed.stdout, listed.stderr
    done = run(*command, environment={**environment, **access})
    assert done.returncode == 0, done.stderr
    assert "resumes after" in done.stderr
    shown = run("checkpoints", "show", "--target", target, environment={**environment, **access})
    assert json.loads(shown.stdout)["counts"]["read"] == ROWS
