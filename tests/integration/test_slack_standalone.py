"""Alerts from a real Airflow: a task's own process, the dag-processor and the triggerer."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import wait_until

if TYPE_CHECKING:
    from tests.support.slack import SlackServer
    from tests.support.standalone import AirflowStandalone

pytestmark = [pytest.mark.standalone, pytest.mark.timeout(600)]


def test_a_failed_task_and_a_killed_one_are_told_once_each(
    standalone: AirflowStandalone, slack_server: SlackServer
) -> None:
    """A task tells of its error, and its DAG does not repeat it; of a killed task the DAG tells."""
    standalone.put_connection("alerting_slack", slack_server.api_connection())
    standalone.trigger("alerting_failed", conf={"how": "raise"}).wait("failed")
    slack_server.wait_for_messages(1, seconds=60)

    killed = standalone.trigger("alerting_failed", conf={"how": "wait"})
    task = killed.task("work")
    wait_until(lambda: "batchkit_progress" in task.xcoms(), seconds=60, what="progress")
    task.process().send_signal(signal.SIGKILL)
    killed.wait("failed")
    own, of_dag = slack_server.wait_for_messages(2, seconds=60)

    assert own.text.startswith("alerting_failed.work failed\nError: ValueError: no such index")
    assert "Where it stands: batch 2/5 · 20/50 records (40%)" in own.text
    assert of_dag.text.startswith("alerting_failed the run failed")
    assert "Where it stands: batch 2/5 · 20/50 records (40%)" in of_dag.text
    assert "Try: 1 of 1" in of_dag.text
    assert f"{standalone.url}/dags/alerting_failed/runs/" in of_dag.whole_text


def test_a_late_run_is_told_by_the_triggerer(
    standalone: AirflowStandalone, slack_server: SlackServer
) -> None:
    """A missed deadline tells the run, and the progress of the task that the deadline names."""
    standalone.put_connection("alerting_slack", slack_server.api_connection())
    run = standalone.trigger("alerting_late")

    (message,) = slack_server.wait_for_messages(1, seconds=90)

    assert message.text.startswith("alerting_late is late")
    assert f"Run: {run.run_id}" in message.text
    assert "Where it stands: batch 2/5 · 20/50 records (40%)" in message.text
    assert "/tasks/wait|Log of the task>" in message.whole_text
    run.wait("success")
