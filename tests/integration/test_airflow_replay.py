"""The replay operator in Airflow, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from airflow_batchkit.connectors.letters import LetterFilter
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.operators.replay import ReplayDeadLettersOperator
from tests.support.object_storage import Place, S3Connections
from tests.support.replay_sweep import World
from tests.support.running_task import running_task

if TYPE_CHECKING:
    from pathlib import Path

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
