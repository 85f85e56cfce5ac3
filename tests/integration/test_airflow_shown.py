"""What Airflow shows and passes on of a run: metrics, buttons, asset events."""

from __future__ import annotations

import itertools
import json
import socket
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, Asset, AssetAlias  # noqa: TID253  # what is tested

from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.engine.exceptions import RecordError
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget
from airflow_batchkit.operators.pipeline import BatchPipelineOperator
from tests.support.airflow import run_dag

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow.models.dagrun import DagRun

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("airflow_database")]

RECORDS = 100
_number = itertools.count()


def records() -> list[dict[str, Any]]:
    """Return some records, one of them bad."""
    return [{"id": number} for number in range(RECORDS)]


def refuse_one(record: dict[str, Any]) -> dict[str, Any] | None:
    """Give one record up, and filter another."""
    if record["id"] == 7:
        raise RecordError("bad")
    return None if record["id"] == 8 else record


def export(folder: Path, **arguments: Any) -> DagRun:
    """Run a DAG of one task."""
    with DAG(f"shown_{next(_number)}", schedule=None) as dag:
        BatchPipelineOperator(
            task_id="export",
            source=IterableSource(records=records, key="id"),
            sink=ObjectStorageSink(url=f"file://{folder}/out/{{{{ run_id | length }}}}"),
            transform=refuse_one,
            batch=BatchPolicy(max_records=10),
            error_budget=ErrorBudget(max_dead_letters=1),
            dead_letters=DeadLetters(f"file://{folder}/letters"),
            **arguments,
        )
    run = run_dag(dag)
    assert run.state == "success"
    return run


def xcoms(run: DagRun) -> dict[str, Any]:
    """Return what the task left in XCom."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(
            select(XComModel).where(XComModel.dag_id == run.dag_id, XComModel.run_id == run.run_id)
        )
        return {xcom.key: XComModel.deserialize_value(xcom) for xcom in found}


def asset_events(run: DagRun) -> dict[str, dict[str, Any]]:
    """Return the extras of the events that a run made, by the asset's URI."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(
            select(AssetEvent).where(
                AssetEvent.source_dag_id == run.dag_id, AssetEvent.source_run_id == run.run_id
            )
        )
        return {event.asset.uri: dict(event.extra) for event in found}


def test_buttons_lead_to_the_output(tmp_path: Path) -> None:
    """The task's page has the addresses of its output, its manifest and its dead letters."""
    run = export(tmp_path)
    found = xcoms(run)
    folder = f"file://{tmp_path}/out/{len(run.run_id)}"
    assert found["_link_OutputLink"] == folder
    assert found["_link_ManifestLink"] == f"{folder}/manifest.json"
    assert found["_link_DeadLettersLink"].startswith(f"file://{tmp_path}/letters/{run.dag_id}.export/")


def test_asset_events_carry_the_counts(tmp_path: Path) -> None:
    """An outlet's event says how much was published; an alias gets an event for where that was."""
    number = next(_number)
    fixed = Asset(f"s3://lake/orders-{number}")
    run = export(tmp_path, outlets=[fixed, AssetAlias(f"orders-{number}")])
    events = asset_events(run)
    location = f"file://{tmp_path}/out/{len(run.run_id)}"
    assert set(events) == {fixed.uri, location}
    for extra in events.values():
        counts = {name: extra[name] for name in ("read", "written", "filtered", "dead_lettered")}
        assert counts == {"read": RECORDS, "written": RECORDS - 2, "filtered": 1, "dead_lettered": 1}
        assert extra["location"] == location
        assert json.dumps(extra)


@pytest.mark.parametrize("part", [{"local": True}, {"max_batches": 2}, {"plan_only": True}])
def test_nothing_whole_makes_no_event(tmp_path: Path, part: dict[str, Any]) -> None:
    """A DAG downstream is not started by a run that published no whole output."""
    run = export(tmp_path, outlets=[Asset(f"s3://lake/part-{next(_number)}")], **part)
    assert asset_events(run) == {}


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Give a StatsD server, and have Airflow's metrics sent there as in a task's own process."""
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics import stats_utils

    made: list[Any] = []

    def backend() -> Any:
        made.append(stats_utils.get_stats_factory()())
        return made[-1]

    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        for name, value in {
            "STATSD_ON": "True",
            "STATSD_HOST": "127.0.0.1",
            "STATSD_PORT": str(server.getsockname()[1]),
            "STATSD_INFLUXDB_ENABLED": "True",
        }.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__{name}", value)
        stats.initialize(factory=backend, export_legacy_names=False)
        yield server
    for one in made:
        one.statsd.close()
    monkeypatch.undo()
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)


def received(server: socket.socket, *, until: str) -> Iterator[tuple[str, float, str]]:
    """Yield name, value and type of each of our metrics, up to one of this name."""
    while True:
        text = server.recv(65_536).decode()
        name, _, rest = text.partition(":")
        value, kind = rest.split("|")[:2]
        metric, _, tags = name.partition(",")
        if metric.rpartition("airflow.")[2].startswith("batchkit."):
            metric = metric.rpartition("airflow.")[2]
            assert "task_id=export" in tags
            assert "dag_id=shown_" in tags
            yield metric, float(value), kind
            if metric == until:
                return


def test_metrics_add_up(tmp_path: Path, statsd: socket.socket) -> None:
    """The counters of a run are the counts of its report, and its gauges end with nothing left."""
    export(tmp_path)
    totals: Counter[str] = Counter()
    last: dict[str, float] = {}
    for name, value, kind in received(statsd, until="batchkit.run.completed"):
        if kind == "c":
            totals[name] += int(value)
        last[name] = value
    assert {name: totals[name] for name in totals if name.startswith("batchkit.records.")} == {
        "batchkit.records.read": RECORDS,
        "batchkit.records.written": RECORDS - 2,
        "batchkit.records.filtered": 1,
        "batchkit.records.dead_lettered": 1,
    }
    assert totals["batchkit.batches"] == RECORDS / 10
    assert last["batchkit.lag.records"] == 0
    assert last["batchkit.batch.duration"] > 0
    assert last["batchkit.run.duration"] > 0
