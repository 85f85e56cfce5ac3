"""The tests' own Airflow runs DAGs for real, and its task processes can be found and killed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import wait_until

if TYPE_CHECKING:
    from tests.support.standalone import AirflowStandalone

pytestmark = [pytest.mark.standalone, pytest.mark.timeout(600)]


def test_a_killed_task_is_tried_again(standalone: AirflowStandalone) -> None:
    """SIGKILL of the process found for a task ends its try; the next one finds the state store as it was."""
    run = standalone.trigger("counting", conf={"until": 6})
    task = run.task("count")
    wait_until(lambda: task.store().get("count", 0) >= 2, seconds=60, what="two counts")

    task.process().send_signal(signal.SIGKILL)

    run.wait("success")
    assert [attempt["state"] for attempt in task.tries()] == ["failed", "success"]
    assert task.xcoms()["return_value"] == 6


def test_a_terminated_task_hears_of_it(standalone: AirflowStandalone) -> None:
    """SIGTERM to the process found for a task calls its on_kill, which the task's log shows."""
    run = standalone.trigger("counting", conf={"until": 6})
    task = run.task("count")
    wait_until(lambda: task.store().get("count", 0) >= 2, seconds=60, what="two counts")

    task.process().send_signal(signal.SIGTERM)

    run.wait("success")
    assert "asked to stop" in task.log()


def test_a_finished_task_can_be_cleared(standalone: AirflowStandalone) -> None:
    """Clearing a finished task runs it again; its state store holds what was put there by hand."""
    run = standalone.trigger("counting")
    task = run.task("count")
    run.wait("success")
    task.put_in_store("count", 5)

    task.clear()

    run.wait("success")
    assert task.xcoms()["return_value"] == 5
