"""Alerts arrive in Slack: from tasks, from DAGs, from the triggerer, and whatever Slack itself does."""

from __future__ import annotations

import asyncio
import tempfile
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.engine.exceptions import SupersededError
from airflow_batchkit.notifications import delivery, told as told_marks
from airflow_batchkit.notifications.slack import (
    SlackDeadlineNotifier,
    SlackFailureNotifier,
    slack_alerts,
)
from tests.support.airflow import run_dag
from tests.support.slack import Answer, SlackServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow.sdk import DAG

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("airflow_database", "_connections")]

CHANNEL = "#data-alerts"
WAYS: dict[str, dict[str, Any]] = {
    "api": {"channel": CHANNEL},
    "webhook": {"slack_webhook_conn_id": "slack_default"},
}
LATE = {
    "dag_run": {"dag_id": "nightly", "dag_run_id": "scheduled__1", "state": "running", "logical_date": None},
    "deadline": {"id": "0198", "deadline_time": "2026-03-01T06:00:00Z"},
}


@pytest.fixture
def _connections(slack_server: SlackServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_API_DEFAULT", slack_server.api_connection())
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", slack_server.webhook_connection())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def one_task_dag(dag_id: str, work: Callable[..., Any], **arguments: Any) -> DAG:
    """Make a DAG whose only task does some work."""
    from airflow.sdk import DAG, task

    with DAG(dag_id, schedule=None, **arguments) as dag:
        task(task_id="work")(work)()
    return dag


def task_level() -> dict[str, Any]:
    """Wire failures of tasks only."""
    return {"default_args": {"on_failure_callback": SlackFailureNotifier(channel=CHANNEL)}}


def fail(message: str) -> Callable[[], None]:
    """Make work that fails with a message."""

    def work() -> None:
        raise ValueError(message)

    return work


@pytest.mark.parametrize("way", ["api", "webhook"])
def test_a_failed_task_is_told(slack_server: SlackServer, way: str) -> None:
    """A task that fails makes a message with the error, the stack trace and a link to its log."""
    failed = SlackFailureNotifier(**WAYS[way])
    run = run_dag(
        one_task_dag(f"told_{way}", fail("no such index"), default_args={"on_failure_callback": failed})
    )

    (message,) = slack_server.messages
    assert run.state == "failed"
    assert (message.by, message.channel) == (way, CHANNEL if way == "api" else None)
    assert message.text.startswith(f"told_{way}.work failed\nError: ValueError: no such index\n")
    assert "Try: 1 of 1" in message.text
    assert "raise ValueError(message)\nValueError: no such index" in message.whole_text
    assert f"/dags/told_{way}/runs/" in message.whole_text
    assert "/tasks/work?try_number=1|Log of the task>" in message.whole_text


def test_one_failure_is_one_message(slack_server: SlackServer) -> None:
    """With both levels wired, the task tells and the DAG is silent."""
    run_dag(one_task_dag("told_once", fail("no such index"), **slack_alerts(channel=CHANNEL)))

    assert [message.text.splitlines()[0] for message in slack_server.messages] == ["told_once.work failed"]


def test_where_it_stands_comes_from_the_state_store(slack_server: SlackServer) -> None:
    """The progress that an operator left in the state store is in the message."""

    def work(task_state_store: Any) -> None:
        task_state_store.set("progress", {"line": "batch 2/5 · 20/50 records (40%)", "cursor": "id 20"})
        raise ValueError("the sink is full")

    run_dag(one_task_dag("told_where", work, **task_level()))

    (message,) = slack_server.messages
    assert "Where it stands: batch 2/5 · 20/50 records (40%)" in message.text
    assert "Cursor: id 20" in message.text


def test_a_run_that_fails_without_a_word_from_its_task_is_told(slack_server: SlackServer) -> None:
    """When no task-level alert went out (its process was killed), the DAG's callback tells of the run."""
    alerts = slack_alerts(channel=CHANNEL)
    alerts["default_args"] = {}

    run_dag(one_task_dag("told_by_dag", fail("unheard"), **alerts))

    (message,) = slack_server.messages
    assert message.text.startswith("told_by_dag the run failed")
    assert "Last task: work" in message.text
    assert "Reason: task_failure" in message.text


def test_nothing_dangerous_leaves(slack_server: SlackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that the task looked up, a password in an address and a call to the channel stay at home."""
    monkeypatch.setenv("AIRFLOW_CONN_STORE", '{"conn_type": "http", "password": "s3cr3t-of-the-store"}')

    def work() -> None:
        from airflow.sdk import BaseHook

        password = BaseHook.get_connection("store").password
        raise ValueError(f"<!channel> @here {password} at https://me:hunter2hunter2@store.example/x")

    run_dag(one_task_dag("told_safely", work, **task_level()))

    (message,) = slack_server.messages
    assert "&lt;!channel&gt;" in message.whole_text
    for planted in ("<!channel>", "@here", "s3cr3t-of-the-store", "hunter2hunter2"):
        assert planted not in message.whole_text


def test_a_try_that_made_way_is_no_failure(slack_server: SlackServer) -> None:
    """A leg that a newer one superseded tells nobody: the run goes on elsewhere."""

    def work() -> None:
        raise RuntimeError("this leg is over") from SupersededError("a newer leg runs")

    run_dag(
        one_task_dag(
            "told_nobody", work, default_args={"on_failure_callback": SlackFailureNotifier(channel=CHANNEL)}
        )
    )

    assert slack_server.messages == []


def test_a_callback_that_comes_twice_is_told_once(slack_server: SlackServer) -> None:
    """Airflow calls back twice for a lost worker; a cleared task, which has a new id, is told again."""

    def lost(instance: str) -> dict[str, Any]:
        return {"ti": SimpleNamespace(id=instance, dag_id="d", run_id="r", task_id="t", try_number=1)}

    for _ in range(2):
        SlackFailureNotifier(channel=CHANNEL)(lost("0198"))
    assert len(slack_server.messages) == 1
    assert "Error: none is known: the process was killed" in slack_server.messages[0].text

    SlackFailureNotifier(channel=CHANNEL)(lost("0199"))
    assert len(slack_server.messages) == 2


def test_what_the_task_said_its_dag_does_not_repeat(
    slack_server: SlackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DAG's callback is silent about a try whose own alert went to the same place, not about another."""
    xcoms: dict[str, Any] = {}
    told = SimpleNamespace(
        dag_id="d",
        run_id="r",
        task_id="t",
        map_index=-1,
        try_number=1,
        xcom_push=lambda *, key, value: xcoms.update({key: value}),
        xcom_pull=lambda *, task_ids, key, map_indexes: xcoms.get(key),  # noqa: ARG005  # as Airflow calls it
    )
    SlackFailureNotifier(channel=CHANNEL)({"ti": told, "exception": ValueError("x")})
    assert len(slack_server.messages) == 1

    SlackFailureNotifier(channel=CHANNEL)({"ti": told, "reason": "task_failure"})
    assert len(slack_server.messages) == 1

    monkeypatch.setattr(told_marks, "APPEARS_WITHIN", 0)
    SlackFailureNotifier(channel="#elsewhere")({"ti": told, "reason": "task_failure"})
    told.try_number = 2
    SlackFailureNotifier(channel=CHANNEL)({"ti": told, "reason": "task_failure"})
    assert [message.channel for message in slack_server.messages[1:]] == ["#elsewhere", CHANNEL]


@pytest.mark.parametrize("way", ["api", "webhook"])
def test_a_late_run_is_told_from_an_event_loop(slack_server: SlackServer, way: str) -> None:
    """The deadline notifier, awaited as the triggerer does, says which run is late and since when."""

    async def triggerer() -> None:
        await SlackDeadlineNotifier(**WAYS[way], context=dict(LATE))  # type: ignore[arg-type]  # the triggerer's context

    asyncio.run(triggerer())

    (message,) = slack_server.messages
    assert message.by == way
    assert message.text.startswith("nightly is late")
    assert "Deadline: 2026-03-01T06:00:00Z" in message.text
    assert "/dags/nightly/runs/scheduled__1" in message.text


def test_a_late_run_is_told_from_an_executor(slack_server: SlackServer) -> None:
    """The deadline notifier works as a SyncCallback too."""
    SlackDeadlineNotifier(channel=CHANNEL)(dict(LATE))

    assert [message.text.splitlines()[0] for message in slack_server.messages] == ["nightly is late"]


@pytest.mark.fault("alerts-away", at="airflow")
def test_a_short_wait_is_waited(slack_server: SlackServer) -> None:
    """A 429 that asks for a second is obeyed, on both ways, and the message arrives."""
    slack_server.answer_next(Answer(status=429, retry_after=1))
    SlackDeadlineNotifier(channel=CHANNEL).notify(LATE)  # type: ignore[arg-type]  # the triggerer's context
    slack_server.answer_next(Answer(status=429, retry_after=1))
    asyncio.run(SlackDeadlineNotifier(slack_webhook_conn_id="slack_default").async_notify(LATE))  # type: ignore[arg-type]  # as above

    assert [message.by for message in slack_server.messages] == ["api", "webhook"]
    assert slack_server.refusals == ["ratelimited", "ratelimited"]


@pytest.mark.fault("alerts-away", at="airflow")
@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=429, retry_after=600),
        Answer(status=500),
        Answer(error="channel_not_found"),
        Answer(after=3600),
    ],
    ids=["rate limited for long", "broken", "no such channel", "silent"],
)
def test_slack_cannot_hold_or_fail_a_task(
    slack_server: SlackServer,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever Slack answers, the callback returns in time, without an error, and logs one line."""
    monkeypatch.setattr(delivery, "REQUEST_SECONDS", 1)
    slack_server.answer_next(answer, answer)
    began = time.monotonic()

    SlackFailureNotifier(channel=CHANNEL)({"run_id": "r", "reason": "task_failure"})

    assert time.monotonic() - began < 5
    assert slack_server.messages == []
    (line,) = [record for record in caplog.records if record.name == "airflow_batchkit.notifications.slack"]
    assert line.getMessage().startswith("alert not sent through connection 'slack_api_default'")


@pytest.mark.fault("alerts-away", at="airflow")
def test_a_slack_that_dribbles_is_left(slack_server: SlackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that never meets the read timeout is cut off by the limit for the whole."""
    monkeypatch.setattr(delivery, "TOTAL_SECONDS", 0.5)
    slack_server.answer_next(Answer(after=4))
    began = time.monotonic()

    SlackFailureNotifier(channel=CHANNEL)({"run_id": "r", "reason": "task_failure"})

    assert time.monotonic() - began < 3


@pytest.mark.fault("alerts-away", at="airflow")
def test_after_a_failure_to_send_the_second_callback_speaks(slack_server: SlackServer) -> None:
    """What the first callback could not say is not taken as said."""
    slack_server.answer_next(Answer(status=500))
    for _ in range(2):
        SlackFailureNotifier(channel=CHANNEL)({"run_id": "r", "reason": "task_failure"})

    assert len(slack_server.messages) == 1


@pytest.mark.fault("alerts-away", at="airflow")
def test_the_triggerer_hears_that_slack_is_down(slack_server: SlackServer) -> None:
    """On an event loop the error is raised, so that Airflow shows the deadline's callback as failed."""
    slack_server.answer_next(Answer(error="channel_not_found"))

    with pytest.raises(Exception, match="channel_not_found"):
        asyncio.run(SlackDeadlineNotifier(channel=CHANNEL).async_notify(LATE))  # type: ignore[arg-type]  # the triggerer's context


@pytest.mark.fault("alerts-away", at="airflow")
def test_a_connection_that_is_missing_fails_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A DAG whose Slack connection was never made runs as always; the log says what to look at."""
    run = run_dag(
        one_task_dag("told_nowhere", fail("x"), **slack_alerts(channel=CHANNEL, slack_conn_id="none"))
    )

    assert run.state == "failed"
    assert "not sent through connection 'none'" in caplog.text


def test_alerts_are_wired_in_one_line() -> None:
    """The DAG's own default_args are kept; the deadline names our notifier by an importable path."""
    alerts = slack_alerts(
        channel=CHANNEL, deadline=timedelta(hours=2), task_id="export", default_args={"retries": 3}
    )

    assert alerts["default_args"]["retries"] == 3
    assert alerts["default_args"]["on_failure_callback"] is alerts["on_failure_callback"]
    assert alerts["deadline"].interval == timedelta(hours=2)
    assert alerts["deadline"].callback.serialize() == {
        "path": "airflow_batchkit.notifications.slack.SlackDeadlineNotifier",
        "kwargs": {"channel": CHANNEL, "task_id": "export"},
    }
    assert "deadline" not in slack_alerts(channel=CHANNEL)


def test_a_dag_with_alerts_is_the_same_each_time_it_is_parsed() -> None:
    """Serialised twice, the DAG is the same JSON: no parse makes a new version of it."""
    from airflow.serialization.serialized_objects import DagSerialization

    def made() -> dict[str, Any]:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        alerts = slack_alerts(channel=CHANNEL, deadline=timedelta(hours=2))
        return dict(
            DagSerialization.to_dict(one_task_dag("told_same", fail("x"), start_date=start, **alerts))
        )

    assert made() == made()
