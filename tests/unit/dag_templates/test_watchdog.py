"""The watchdog DAG, run by Airflow itself against captured answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_batchkit.dag_templates import watchdog
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.watching import Limits, Watched
from tests.support.airflow import run_dag
from tests.support.airflow_answers import TOKEN, AirflowAnswers
from tests.support.slack import Answer, SlackServer

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def airflow(slack_server: SlackServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowAnswers]:
    """Give an Airflow with one paused DAG, and the two connections that a watchdog needs."""
    with AirflowAnswers() as server:
        server.token = TOKEN
        server.add_dag(next_dagrun_run_after=None, is_paused=True)
        server.add_run()
        host, _, port = server.url.removeprefix("http://").partition(":")
        connection = {
            "conn_type": "http",
            "host": host,
            "port": int(port),
            "login": "watch",
            "password": "w4tch",
        }
        monkeypatch.setenv("AIRFLOW_CONN_AIRFLOW_API_DEFAULT", json.dumps(connection))
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_API_DEFAULT", slack_server.api_connection())
        yield server


def dag_of(**settings: Any) -> Any:
    """Make a watchdog that tells at once."""
    return watchdog(
        start_date=START, slack_channel="#data", settle=timedelta(0), **{"watched": [Watched()], **settings}
    )


@pytest.mark.airflow
@pytest.mark.usefixtures("airflow_database")
def test_it_watches(airflow: AirflowAnswers, slack_server: SlackServer) -> None:
    """Told once, over once, in between nothing; what Slack did not take fails the run and comes later."""
    slack_server.answer_next(Answer(error="channel_not_found"))
    assert run_dag(dag_of()).state == "failed"
    assert run_dag(dag_of()).state == "success"
    assert run_dag(dag_of()).state == "success"
    airflow.dags[0]["is_paused"] = False
    with AirflowAnswers() as switch:
        switch.planned.extend([(200, {}, b"")] * 2)
        assert run_dag(dag_of(ping_url=f"{switch.url}/all-is-well")).state == "success"
        assert switch.asked == ["/all-is-well"]

    told = [message.text.splitlines()[0] for message in slack_server.messages]
    assert told == ["orders is paused", "All clear: orders is no longer paused"]
    assert {message.channel for message in slack_server.messages} == {"#data"}


def test_two_checks_never_meet() -> None:
    """One run at a time, none that was missed is made up for, and no try is repeated."""
    dag = dag_of()
    (task,) = dag.tasks

    assert (dag.max_active_runs, dag.catchup, task.retries) == (1, False, 0)
    assert task.execution_timeout < timedelta(minutes=5)


def test_it_is_the_same_each_time_it_is_parsed() -> None:
    """Serialised twice, the DAG is the same JSON: no parse makes a new version of it."""
    from airflow.serialization.serialized_objects import DagSerialization

    def serialised() -> str:
        made = dag_of(watched=[Watched(limits=Limits(max_age=timedelta(hours=26)))])
        return json.dumps(DagSerialization.to_dict(made), sort_keys=True)

    assert serialised() == serialised()


def test_what_cannot_work_is_refused_when_the_file_is_parsed() -> None:
    """Nowhere to tell, a window that is none, an address in the clear."""
    with pytest.raises(UsageError, match="say where alerts go"):
        watchdog(start_date=START)
    with pytest.raises(UsageError, match="maintenance window"):
        dag_of(maintenance=["Sunday"])
    with pytest.raises(UsageError, match="must be an https:// URL"):
        dag_of(ping_url="http://hc.example/x")
