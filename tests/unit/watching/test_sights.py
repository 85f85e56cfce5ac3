"""What a check makes of Airflow's answers."""

from __future__ import annotations

import json
from datetime import timedelta

from airflow_batchkit.watching import Watched
from tests.support.watching import Watch


def test_stuck_tasks_and_import_errors_are_read(watch: Watch) -> None:
    """From the lists that Airflow gives for all DAGs at once."""
    watch.airflow.add_run(
        run_after="2026-11-23T00:04:00Z", state="running", end_date=None, dag_run_id="manual__1"
    )
    watch.airflow.tasks.append(
        {
            "dag_id": "orders",
            "dag_run_id": "manual__1",
            "task_id": "export",
            "state": "queued",
            "queued_when": "2026-11-23T00:05:00Z",
        }
    )
    watch.airflow.import_errors.append(
        {"filename": "orders.py", "bundle_name": "dags-folder", "stack_trace": "SyntaxError: no"}
    )
    watch.check(after=timedelta(minutes=31))

    assert watch.news() == ["orders.py cannot be imported", "orders is stuck in the queue"]


def test_a_dag_that_slips_through_between_two_pages_is_not_gone(watch: Watch) -> None:
    """A list that changes while it is read leaves one out; a stale DAG is gone, though it has an address."""
    watch.expectations = {"watched": [Watched(tags=["nightly"])]}
    watch.check()
    watch.airflow.planned.append((200, {}, json.dumps(watch.airflow.health).encode()))
    watch.airflow.planned.append((200, {}, b'{"dags": [], "total_entries": 0}'))
    assert watch.check().all_is_well

    watch.airflow.dags[0]["is_stale"] = True
    watch.check()
    assert watch.news() == ["orders is not in Airflow"]


def test_another_program_answers(watch: Watch) -> None:
    """Airflow 2, which has no such API, and a web server that finds JSON for everything."""
    watch.expectations = {"settle": timedelta(0)}
    answers: list[tuple[int, dict[str, str], bytes]] = [(404, {}, b""), (200, {}, b'{"status": "ok"}')]
    for answer in answers:
        watch.airflow.planned.append(answer)
        watch.check()
        assert watch.news() == ["Airflow does not answer"]
        assert "not Airflow's API" in (watch.phone.incidents[-1].error_message or "")
        watch.check()
        assert watch.news() == ["All clear: Airflow answers again"]


def test_an_answer_that_lacks_something_is_no_answer(watch: Watch) -> None:
    """Another program on that port, or a proxy's JSON, is told like a server that is away."""
    watch.expectations = {"settle": timedelta(0)}
    watch.airflow.tasks.append({"state": "queued", "dag_id": "orders", "queued_when": "then"})
    watch.check()

    assert watch.news() == ["Airflow does not answer"]
    assert "an answer cannot be read (ValueError" in (watch.phone.incidents[-1].error_message or "")
