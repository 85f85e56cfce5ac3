"""Faults as Airflow sees them, in this process: what a leg raises, and what the following legs publish."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException  # noqa: TID253  # what is tested
from airflow.sdk.exceptions import AirflowRescheduleException  # noqa: TID253  # what is tested

from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.engine.exceptions import PushbackError, RecordError, TransientError
from airflow_batchkit.engine.policies import BatchRetry, ErrorBudget
from airflow_batchkit.testing.doubles import made_up_records
from tests.support.object_storage import Place, S3Connections, leg
from tests.support.operator_bench import ALL, RECORDS, Bench, seconds_away
from tests.support.running_task import running_task
from tests.support.targets import let_lease_run_out

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("airflow_database")]

_number = itertools.count()
BODIES = [json.loads(record.body) for record in made_up_records(RECORDS)]


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Give a task instance that runs."""
    with running_task(f"faults_{next(_number)}") as context:
        yield Bench(context)


def check(bench: Bench) -> None:
    """Compare what is published with what was read, record by record."""
    assert bench.published == ALL
    assert bench.target.records() == BODIES
    assert bench.target.staged == {}
    assert len(bench.target.history) == 1


@pytest.mark.fault("pushback", at="airflow")
def test_pushback_is_waited_for_where_it_asks_for_little(bench: Bench) -> None:
    """A short wait is spent in the slot, a long one outside of it; neither uses up a retry."""
    bench.target.script.fail("write", PushbackError("429", 0.01), at=4)
    bench.target.script.fail("write", PushbackError("503: come back in five minutes", 300.0), at=8)
    with pytest.raises(AirflowRescheduleException) as later:
        bench.leg(batch_retry=BatchRetry(first_wait=timedelta(milliseconds=1)))
    assert 290 < seconds_away(later.value) <= 300
    report = bench.leg()
    assert report["legs"] == 2
    check(bench)


@pytest.mark.fault("refused", at="airflow")
@pytest.mark.parametrize("page", [1, 5, 10])
def test_server_that_is_away(bench: Bench, page: int) -> None:
    """In the middle of a run it costs no retry; the next leg goes on where it was."""
    bench.log.script.fail("page:orders", TransientError("connection refused"), at=page)
    with pytest.raises(AirflowRescheduleException):
        bench.leg()
    assert bench.leg()["legs"] == 2
    check(bench)


@pytest.mark.fault("poison", at="airflow")
def test_poison_within_the_budget_and_beyond_it(bench: Bench, tmp_path: Path) -> None:
    """Beyond the budget it fails for good, and again until it is cleared; then each record is somewhere."""

    def refuse(record: dict[str, Any]) -> dict[str, Any]:
        if int(record["id"]) % 20 == 0:
            raise RecordError("a made-up refusal")
        return record

    settings: dict[str, Any] = {
        "transform": refuse,
        "dead_letters": DeadLetters(f"file://{tmp_path}/letters"),
        "error_budget": ErrorBudget(max_dead_letters=3),
    }
    for _ in range(2):
        with pytest.raises(AirflowFailException, match="4 dead letters, 3 allowed"):
            bench.leg(**settings)
    assert bench.published == []
    bench.clear()
    report = bench.leg(**settings)
    poisoned = {name for name in ALL if int(name) % 20 == 0}
    assert bench.published == [name for name in ALL if name not in poisoned]
    letters = [
        json.loads(line)
        for path in (tmp_path / "letters").rglob("*.ndjson")
        for line in path.read_text().splitlines()
    ]
    assert {letter["id"]: letter["record"] for letter in letters} == {
        name: body for name, body in zip(ALL, BODIES, strict=True) if name in poisoned
    }
    assert len(letters) == len(poisoned)
    assert report["counts"]["dead_lettered_by_transform"] == len(poisoned)


@pytest.mark.fault("two-at-once", at="airflow")
def test_target_of_another_live_run_is_waited_for(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The second run says who is at work, and comes back when the lease is over, without using a retry."""
    place = Place(url=f"file://{tmp_path}/out", connections=S3Connections(endpoint_url=""))
    job = f"{bench.context['ti'].dag_id}.task"
    place.sink().start(leg("1", run="the-first", job=job, holder="Airflow"))
    sink = ObjectStorageSink(url=place.url)
    for _ in range(2):
        with caplog.at_level(logging.INFO), pytest.raises(AirflowRescheduleException) as later:
            bench.leg(sink=sink)
        assert 100 < seconds_away(later.value) <= 121
        assert "is held by run the-first" in caplog.text
    let_lease_run_out(tmp_path / "out")
    report = bench.leg(sink=sink)
    assert report["counts"]["written"] == RECORDS
    assert [json.loads(line) for line in place.lines()] == [
        {"_id": name, **body} for name, body in zip(ALL, BODIES, strict=True)
    ]


@pytest.mark.fault("checkpoint-damaged", at="airflow")
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda stored: stored.replace('"read":', '"read":1'), "damaged"),
        (lambda stored: stored[: len(stored) // 2], "damaged"),
        (lambda _: "yes", "damaged"),
        (lambda stored: stored.replace('"schema":1', '"schema":99'), "damaged|upgrade the package"),
    ],
    ids=["changed", "cut off", "another value", "newer version"],
)
def test_checkpoint_that_somebody_changes(bench: Bench, damage: Any, says: str) -> None:
    """It is refused for good, with the way to begin anew; nothing is published of it."""
    bench.log.script.fail("page:orders", TransientError("connection refused"), at=6)
    with pytest.raises(AirflowRescheduleException):
        bench.leg()
    store = bench.context["task_state_store"]
    store.set("batchkit_checkpoint", damage(store.get("batchkit_checkpoint")))
    with pytest.raises(AirflowFailException, match=f"CannotResumeError: .*({says}).*restart the run"):
        bench.leg()
    assert bench.published == []
    bench.clear()
    assert bench.leg(restart=True)["counts"]["read"] == RECORDS
    check(bench)


@pytest.mark.fault("checkpoint-unfit", at="airflow")
def test_checkpoint_of_another_source(bench: Bench) -> None:
    """A source that is another one since the checkpoint is refused by name; restarted, the run is whole."""
    bench.log.script.fail("page:orders", TransientError("connection refused"), at=6)
    with pytest.raises(AirflowRescheduleException):
        bench.leg()
    other = replace(bench.source, fingerprints={**bench.source.fingerprints, "source": "made anew"})
    with pytest.raises(AirflowFailException, match="changed since the checkpoint: source"):
        bench.leg(source=other)
    assert bench.published == []
    bench.clear()
    bench.leg(source=other, restart=True)
    check(bench)
