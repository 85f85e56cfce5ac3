"""What happened, as callbacks tell it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (  # noqa: TID253  # its exceptions are what is tested
    AirflowFailException,
)

from airflow_batchkit.engine.exceptions import ErrorBudgetExceededError, TransientError
from airflow_batchkit.notifications.incident import deadline_incident, failure_incident


def task_instance(**facts: object) -> SimpleNamespace:
    """Make what the callbacks' contexts hold of a task instance."""
    known = {
        "id": "0198-uuid",
        "dag_id": "nightly",
        "run_id": "scheduled__2026-03-01",
        "task_id": "export",
        "map_index": -1,
        "try_number": 2,
        "max_tries": 3,
        "log_url": "http://airflow/log",
    }
    return SimpleNamespace(**{**known, **facts})


def raised() -> BaseException:
    """Return an exception with a cause."""
    error = TransientError("the cluster does not answer")
    error.__cause__ = KeyError("missing")
    return error


def test_a_worker_gives_everything() -> None:
    """At task level the incident has task, try, logical date, exception and the whole stack trace."""
    context: dict[str, Any] = {
        "ti": task_instance(),
        "exception": raised(),
        "logical_date": datetime(2026, 3, 1, tzinfo=UTC),
    }

    incident = failure_incident(context)

    assert incident.kind == "task_failed"
    assert (incident.dag_id, incident.task_id, incident.map_index) == ("nightly", "export", None)
    assert (incident.try_number, incident.tries) == (2, 4)
    assert incident.logical_date == "2026-03-01T00:00:00+00:00"
    assert incident.error_type == "TransientError"
    assert incident.error_message == "the cluster does not answer"
    assert "KeyError: 'missing'" in (incident.stack_trace or "")
    assert incident.log_url == "http://airflow/log"


def test_the_error_of_the_engine_is_told_unwrapped() -> None:
    """What an operator raises to have Airflow not retry is a wrapping; the message names the error inside."""
    wrapped = AirflowFailException("ErrorBudgetExceededError: 11 dead letters, 10 allowed")
    wrapped.__cause__ = ErrorBudgetExceededError("11 dead letters, 10 allowed")

    incident = failure_incident({"ti": task_instance(), "exception": wrapped})

    assert (incident.error_type, incident.error_message) == (
        "ErrorBudgetExceededError",
        "11 dead letters, 10 allowed",
    )
    assert "AirflowFailException" in (incident.stack_trace or "")


def test_the_environment_has_the_name_that_the_site_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gets alerts from several Airflows can tell which one speaks."""
    monkeypatch.setenv("AIRFLOW__BATCHKIT__ENVIRONMENT_NAME", "staging")

    assert failure_incident({"ti": task_instance()}).environment == "staging"


def test_the_dag_processor_gives_no_exception() -> None:
    """A task whose process was lost is told without one; the reduced task instance is enough."""
    incident = failure_incident({"ti": SimpleNamespace(dag_id="d", run_id="r", task_id="t")})

    assert incident.kind == "task_failed"
    assert (incident.error_type, incident.stack_trace, incident.tries) == (None, None, None)


def test_an_exception_may_be_a_text() -> None:
    """Some of Airflow's paths hand over a text; it is the error's message."""
    incident = failure_incident({"ti": task_instance(), "exception": "executor lost it"})

    assert (incident.error_type, incident.error_message) == (None, "executor lost it")


def test_a_run_fails_with_its_last_task() -> None:
    """At DAG level the incident is the run's, with Airflow's reason and the last task's log."""
    incident = failure_incident({"ti": task_instance(), "reason": "task_failure"})

    assert incident.kind == "run_failed"
    assert (incident.reason, incident.task_id) == ("task_failure", "export")


def test_a_run_fails_without_any_task() -> None:
    """Where Airflow knows no last task, DAG, run and reason are told."""
    context = {"dag": SimpleNamespace(dag_id="nightly"), "run_id": "manual__1", "reason": "timed_out"}

    incident = failure_incident(context)

    assert (incident.kind, incident.dag_id, incident.run_id) == ("run_failed", "nightly", "manual__1")
    assert (incident.reason, incident.task_id) == ("timed_out", None)
    assert (incident.run_url or "").endswith("/dags/nightly/runs/manual__1")


def test_a_deadline_knows_the_run_only() -> None:
    """The triggerer's context has a run and a deadline as JSON; a task that is named gets a link."""
    context = {
        "dag_run": {"dag_id": "nightly", "dag_run_id": "scheduled__1", "state": "running"},
        "deadline": {"id": "0198", "deadline_time": "2026-03-01T06:00:00Z"},
    }

    incident = deadline_incident(context, task_id="export")

    assert (incident.kind, incident.run_id, incident.run_state) == (
        "deadline_missed",
        "scheduled__1",
        "running",
    )
    assert incident.deadline == "2026-03-01T06:00:00Z"
    assert (incident.log_url or "").endswith("/dags/nightly/runs/scheduled__1/tasks/export")


def test_the_same_try_has_the_same_key() -> None:
    """Two callbacks about one try are equal; another try, task, kind or a cleared task is not."""
    twice = {failure_incident({"ti": task_instance()}).key for _ in range(2)}
    others = {
        failure_incident({"ti": task_instance(**{name: value})}).key
        for name, value in (("try_number", 3), ("task_id", "other"), ("map_index", 1), ("id", "0199-uuid"))
    }
    run = failure_incident({"ti": task_instance(), "reason": "task_failure"}).key

    assert len(twice) == 1
    assert len(twice | others | {run}) == 6
