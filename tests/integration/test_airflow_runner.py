"""The operator under Airflow's own task runner: templates, retries, callbacks, signals, mapping."""

from __future__ import annotations

import itertools
import signal
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit import BatchPipelineOperator, BatchPolicy, BatchRetry, IterableSource, ObjectStorageSink
from airflow_batchkit.engine.exceptions import TransientError
from airflow_batchkit.testing.doubles import MemorySink, MemorySource, MemoryTarget, ReadLog, made_up_records
from tests.support.airflow import run_dag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from airflow.models.dagrun import DagRun
    from airflow.sdk import DAG

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("airflow_database")]

_number = itertools.count()


@pytest.fixture
def calls() -> list[str]:
    """Remember which callbacks Airflow made."""
    return []


@pytest.fixture
def dag(calls: list[str]) -> Iterator[DAG]:
    """Give a DAG whose tasks note their callbacks."""
    from airflow.sdk import DAG

    def note(name: str) -> Callable[[Mapping[str, Any]], None]:
        return lambda _context: calls.append(name)

    with DAG(
        f"runner_{next(_number)}",
        schedule=None,
        params={"index": "orders", "local": False},
        default_args={
            "retry_delay": timedelta(0),
            "on_failure_callback": note("failure"),
            "on_retry_callback": note("retry"),
            "on_success_callback": note("success"),
        },
    ) as dag:
        yield dag


@pytest.fixture(autouse=True)
def come_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait half a minute: in this process no scheduler is there to be misled."""
    monkeypatch.setenv("AIRFLOW__BATCHKIT__MIN_RESCHEDULE_SECONDS", "0")


def export(target: MemoryTarget, log: ReadLog | None = None, **arguments: Any) -> BatchPipelineOperator:
    """Make a task of fifty records in batches of ten."""
    settings: dict[str, Any] = {
        "task_id": "export",
        "source": MemorySource(partitions={"orders": made_up_records(50)}, log=log or ReadLog()),
        "sink": MemorySink(target=target),
        "batch": BatchPolicy(max_records=10),
        "batch_retry": BatchRetry(max_tries=1),
    }
    return BatchPipelineOperator(**(settings | arguments))


def tries(run: DagRun) -> int:
    """Return how many tries the task had."""
    from airflow.utils.session import create_session

    with create_session() as session:
        (task,) = run.get_task_instances(session=session)
    return int(task.try_number)


def test_success(dag: DAG, calls: list[str]) -> None:
    """A run succeeds, with its report as the task's result."""
    target = MemoryTarget()
    export(target)
    assert run_dag(dag).state == "success"
    assert calls == ["success"]
    assert len(target.records()) == 50


def test_sigterm_uses_no_retry(dag: DAG, calls: list[str]) -> None:
    """SIGTERM in the middle: Airflow's handler asks us to stop, no callback runs, the same try goes on."""
    target, log = MemoryTarget(), ReadLog()

    def stop(records: list[Any]) -> list[Any]:
        signal.raise_signal(signal.SIGTERM)
        return records

    log.change_page("orders", 3, stop)
    export(target, log)
    before = signal.getsignal(signal.SIGTERM)
    try:
        run = run_dag(dag)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (run.state, tries(run), calls) == ("success", 1, ["success"])
    assert len(log.opened) == 2
    assert len(target.records()) == 50


def test_permanent_failure_uses_no_retry(dag: DAG, calls: list[str]) -> None:
    """What would fail again fails at the first try."""

    def poison(_: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("no price")

    export(MemoryTarget(), transform=poison, retries=2)
    run = run_dag(dag)
    assert (run.state, tries(run), calls) == ("failed", 1, ["failure"])


def test_source_that_is_away_uses_retries(dag: DAG, calls: list[str]) -> None:
    """A server that does not answer at the start is tried again by Airflow, as often as its retries say."""
    target, log = MemoryTarget(), ReadLog()
    log.script.fail("open", TransientError("connection refused"), times=2)
    export(target, log, retries=2)
    run = run_dag(dag)
    assert (run.state, tries(run), calls) == ("success", 3, ["retry", "retry", "success"])
    assert len(target.records()) == 50


def test_templates_inside_values_are_rendered(dag: DAG, tmp_path: Path) -> None:
    """A templated URL inside a sink is rendered for each run: days do not overwrite each other."""
    BatchPipelineOperator(
        task_id="export",
        source=IterableSource(records=_two_records),
        sink=ObjectStorageSink(url=f"file://{tmp_path}/{{{{ params.index }}}}/{{{{ run_id }}}}"),
        local="{{ params.local }}",
    )
    run = run_dag(dag, conf={"index": "invoices"})
    assert run.state == "success"
    (folder,) = (tmp_path / "invoices").iterdir()
    assert (folder / "manifest.json").exists()


def _two_records() -> list[dict[str, int]]:
    return [{"id": 1}, {"id": 2}]


def test_local_mode_from_the_trigger_form(dag: DAG, tmp_path: Path) -> None:
    """A boolean of the form arrives as text, and means what it says."""
    BatchPipelineOperator(
        task_id="export",
        source=IterableSource(records=_two_records),
        sink=ObjectStorageSink(url=f"file://{tmp_path}/out"),
        local="{{ params.local }}",
    )
    assert run_dag(dag, conf={"local": True}).state == "success"
    assert list(tmp_path.iterdir()) == []


def test_run_without_logical_date(dag: DAG) -> None:
    """A manual run without a logical date works where no template needs one."""
    target = MemoryTarget()
    export(target)
    assert run_dag(dag, logical_date=None).state == "success"
    assert len(target.records()) == 50


def test_template_that_needs_a_logical_date(dag: DAG, calls: list[str]) -> None:
    """Without a logical date such a template fails the run in one line, before any work, without a retry."""
    said: list[str] = []
    log = ReadLog()
    export(
        MemoryTarget(),
        log,
        start_at="{{ ds }}",
        retries=2,
        on_failure_callback=lambda context: said.append(str(context["exception"])),
    )
    assert run_dag(dag, logical_date=None).state == "failed"
    assert (calls, log.opened) == ([], [])
    assert said[0].startswith("start_at: 'ds' is undefined; nothing was read or written.")


def test_mapped_tasks_have_runs_of_their_own(dag: DAG, tmp_path: Path) -> None:
    """Each mapped task keeps its own checkpoint and its own run name."""
    places = [ObjectStorageSink(url=f"file://{tmp_path}/{place}/{{{{ run_id }}}}") for place in ("a", "b")]
    BatchPipelineOperator.partial(task_id="export", source=IterableSource(records=_two_records)).expand(
        sink=places
    )
    run = run_dag(dag)
    assert run.state == "success"
    assert len(list(tmp_path.glob("*/manual_*/manifest.json"))) == 2
