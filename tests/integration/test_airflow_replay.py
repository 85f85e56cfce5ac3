"""The replay operator in Airflow, in this process."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, cast

import pytest

from airflow_batchkit.connectors.elasticsearch import ElasticsearchDeadLetters
from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.letters import LetterFilter
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.policies import ErrorBudget
from airflow_batchkit.operators.pipeline import BatchPipelineOperator
from airflow_batchkit.operators.replay import ReplayDeadLettersOperator
from tests.support.object_storage import Place, S3Connections
from tests.support.replay_sweep import World, broken, orders
from tests.support.running_task import running_task

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.elasticsearch import ElasticsearchEndpoint

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("airflow_database")]


def test_a_task_replays_the_letters_of_another(tmp_path: Path) -> None:
    """The chosen letters leave the place, the report says so, and a second task has nothing to do."""
    place = Place(url=f"file://{tmp_path}/out", connections=S3Connections(endpoint_url=""))
    world = World(place, tmp_path, "world")
    world.export()
    operator = ReplayDeadLettersOperator(
        task_id="replay",
        dead_letters=DeadLetters(f"{world.place.url}/letters"),
        sink=ObjectStorageSink(url=f"{world.place.url}/data"),
        only=LetterFilter(ids=["2", "4"]),
    )
    with running_task("replay_letters") as context:
        report = operator.execute(cast("Any", context))
        assert operator.execute(cast("Any", context)) == report  # Airflow's retry, after the report was lost

    assert (report["counts"]["read"], report["published"]["replayed"]) == (2, 2)
    picture = world.picture()
    assert picture["whole"]
    assert len(picture["letters"]) == 10


@pytest.mark.elasticsearch
def test_a_task_replays_letters_from_an_index(
    tmp_path: Path, elasticsearch_server: ElasticsearchEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exporting and replaying tasks reach the index by its connection; what is replayed leaves it."""
    index = f"letters-{secrets.token_hex(4)}"
    monkeypatch.setenv("AIRFLOW_CONN_SEARCH", elasticsearch_server.url)
    letters = ElasticsearchDeadLetters(index=index, conn_id="search")
    sink = ObjectStorageSink(url=f"file://{tmp_path}/out")
    export = BatchPipelineOperator(
        task_id="export",
        source=IterableSource(records=orders, key="number"),
        sink=sink,
        transform=broken,
        error_budget=ErrorBudget(max_dead_letters=12),
        dead_letters=letters,
    )
    replay = ReplayDeadLettersOperator(
        task_id="replay", dead_letters=letters, sink=sink, only=LetterFilter(ids=["2", "4"])
    )
    try:
        with running_task("export_orders") as context:
            exported = export.execute(cast("Any", context))
        with running_task("replay_orders") as context:
            replayed = replay.execute(cast("Any", context))
    finally:
        found = elasticsearch_server.request("GET", f"/{index}/_search?q=status:settled&size=20")
        elasticsearch_server.request("DELETE", f"/{index}")

    assert (exported["dead_letters"]["count"], replayed["counts"]["written"]) == (12, 2)
    left = sorted(int(hit["_source"]["letter"]["id"]) for hit in found["hits"]["hits"])
    assert left == [0, *range(6, 24, 2)]


@pytest.mark.parametrize("name", ["error_budget", "start_at", "max_batches"])
def test_what_a_replay_cannot_do_is_refused_in_the_dag(name: str) -> None:
    """An argument that would make a replay end early is refused when the DAG file is read."""
    refused: dict[str, Any] = {name: "1"}
    with pytest.raises(UsageError, match=name):
        ReplayDeadLettersOperator(
            task_id="replay",
            dead_letters="file:///letters",
            sink=ObjectStorageSink(url="file:///data"),
            **refused,
        )
