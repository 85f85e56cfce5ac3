"""The example DAGs import, are the same each time they are parsed, and do what their text says."""

from __future__ import annotations

import gzip
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.airflow import run_dag

if TYPE_CHECKING:
    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.s3 import S3Server

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("airflow_database")]

FOLDER = Path(__file__).parents[2] / "dags"
DAG_IDS = (
    "example_elasticsearch_to_s3",
    "example_embedded",
    "example_nightly_export",
    "example_watchdog",
)
ORDERS = 1_200
POISONED = {7, 600, 1_199}
EMPTY = {10, 20}


def load() -> dict[str, Any]:
    """Parse the folder as Airflow does."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=FOLDER)
    assert bag.import_errors == {}
    return dict(bag.dags)


def test_every_example_imports() -> None:
    """Airflow finds all examples and no import error."""
    assert sorted(load()) == sorted(DAG_IDS)


def test_every_example_is_the_same_each_time_it_is_parsed() -> None:
    """Parsed and serialised twice, each DAG is the same JSON: no parse makes a new version of it."""
    from airflow.serialization.serialized_objects import DagSerialization

    def serialised() -> dict[str, str]:
        return {
            name: json.dumps(DagSerialization.to_dict(dag), sort_keys=True) for name, dag in load().items()
        }

    first, second = serialised(), serialised()

    assert first == second
    assert "object at 0x" not in "".join(first.values())


@pytest.mark.parametrize("dag_id", ["example_elasticsearch_to_s3", "example_nightly_export"])
def test_the_nightly_examples_have_alerts_and_a_form(dag_id: str) -> None:
    """Failures are wired at both levels, lateness by a deadline, and the trigger dialog has three fields."""
    dag = load()[dag_id]
    (task,) = dag.tasks

    assert [type(callback).__name__ for callback in task.on_failure_callback] == ["SlackFailureNotifier"]
    assert dag.has_on_failure_callback
    assert dag.deadline
    assert dag.deadline[0].callback.kwargs["task_id"] == task.task_id
    assert list(dag.params) == ["start_at", "restart", "local"]
    assert task.retries == 3


def test_the_embedded_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders go into the folder, empty ones are left out, poisoned ones become dead letters, all add up."""
    database = tmp_path / "orders.db"
    make_orders(database)
    connection = json.dumps({"conn_type": "sqlite", "host": str(database)})
    monkeypatch.setenv("AIRFLOW_CONN_EXAMPLE_ORDERS", connection)
    monkeypatch.setenv("BATCHKIT_EXAMPLE_FOLDER", str(tmp_path))

    run = run_dag(load()["example_embedded"])

    assert run.state == "success"
    records = published(tmp_path / "orders")
    left_out = POISONED | EMPTY
    assert [record["id"] for record in records] == [n for n in range(1, ORDERS + 1) if n not in left_out]
    assert records[0] == {
        "_id": "1",
        "id": 1,
        "customer": "customer 1",
        "amount": "1.25",
        "currency": "EUR",
        "created_at": "2026-03-01T12:00:00Z",
        "cents": 125,
    }
    letters = dead_letters(tmp_path / "dead-letters")
    assert {letter["record"]["id"] for letter in letters} == POISONED
    assert {letter["error_type"] for letter in letters} == {"RecordError"}


@pytest.mark.elasticsearch
@pytest.mark.s3
@pytest.mark.parametrize(
    ("dag_id", "prefix"),
    [
        ("example_elasticsearch_to_s3", "orders/ds=2026-03-01"),
        ("example_nightly_export", "nightly/orders/ds=2026-03-01"),
    ],
)
def test_the_nightly_examples_run(
    dag_id: str,
    prefix: str,
    elasticsearch_server: ElasticsearchEndpoint,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run exports the orders of its day, and no others, below the prefix of that day."""
    connection = {"conn_type": "elasticsearch", "host": elasticsearch_server.url}
    monkeypatch.setenv("AIRFLOW_CONN_ELASTICSEARCH_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", s3_server.airflow_connection())
    elasticsearch_server.request("PUT", "/orders", {"settings": {"number_of_replicas": 0}})
    with s3_server.client() as s3:
        s3.create_bucket(Bucket="lake")
    try:
        for day in (1, 2, 3):
            for number in range(10):
                document = {"created_at": f"2026-03-{day:02}T0{number}:00:00Z", "day": day}
                elasticsearch_server.request("PUT", f"/orders/_doc/{day}-{number}", document)

        dag = load()[dag_id]
        dag.deadline = None  # Airflow 3.3.2: DAG.test() cannot finish a run of a DAG that has a deadline
        # A manual run exports the last whole day before its logical date.
        run = run_dag(dag, logical_date=datetime(2026, 3, 2, 1, tzinfo=UTC))

        assert run.state == "success"
        with s3_server.client() as s3:
            manifest = json.load(s3.get_object(Bucket="lake", Key=f"{prefix}/manifest.json")["Body"])
            bodies = [
                s3.get_object(Bucket="lake", Key=f"{prefix}/{part['key']}")["Body"].read()
                for part in manifest["parts"]
            ]
        records = [json.loads(line) for body in bodies for line in gzip.decompress(body).splitlines()]
        assert sorted(record["_id"] for record in records) == [f"1-{number}" for number in range(10)]
    finally:
        elasticsearch_server.request("DELETE", "/orders")
        s3_server.empty("lake")


def make_orders(database: Path) -> None:
    """Write the table that the embedded example reads."""
    connection = sqlite3.connect(database)
    connection.execute(
        "CREATE TABLE orders"
        " (id INTEGER PRIMARY KEY, customer TEXT, amount TEXT, currency TEXT, created_at TEXT)"
    )
    amounts = {**dict.fromkeys(POISONED, "a lot"), **dict.fromkeys(EMPTY, "0.00")}
    connection.executemany(
        "INSERT INTO orders VALUES (?, ?, ?, 'EUR', '2026-03-01T12:00:00Z')",
        [(n, f"customer {n}", amounts.get(n, f"{n}.25")) for n in range(1, ORDERS + 1)],
    )
    connection.commit()
    connection.close()


def published(folder: Path) -> list[dict[str, Any]]:
    """Read what the manifest lists, in its order."""
    manifest = json.loads((folder / "manifest.json").read_text())
    bodies = [gzip.decompress((folder / part["key"]).read_bytes()) for part in manifest["parts"]]
    return [json.loads(line) for body in bodies for line in body.splitlines()]


def dead_letters(folder: Path) -> list[dict[str, Any]]:
    """Read all dead letters below a folder."""
    files = sorted(folder.rglob("*.ndjson"))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
