"""The demo's course of events, one function a scene."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_batchkit.cli.demo.dag_file import DAG_ID, TASK_ID, dag_file
from airflow_batchkit.cli.demo.orders import make_orders, order_ids
from airflow_batchkit.cli.demo.proof import examine
from airflow_batchkit.cli.demo.servers import DemoAirflow
from airflow_batchkit.engine.checkpoint import decode
from airflow_batchkit.engine.exceptions import PermanentError, TransientError

if TYPE_CHECKING:
    from airflow_batchkit.cli.demo.story import Story

_RUN_ID = "demo"
_KILL_AT = 0.45
_LOOK_EVERY = 0.5
_SECONDS = 120.0
_CHECKPOINT_KEY = "batchkit_checkpoint"


def play(story: Story, folder: Path, *, orders: int) -> bool:
    """Play the whole demo.

    :param folder: an empty folder; what the demo makes stays in it.
    :param orders: how many orders to make.
    :returns: whether everything held.
    """
    story.title(f"{orders:,} orders, SQLite → folder, real Airflow, real SIGKILL")
    shop, output, letters = folder / "shop.db", folder / "orders", folder / "dead-letters"
    environment = {
        "BATCHKIT_EXAMPLE_FOLDER": str(folder),
        "AIRFLOW_CONN_EXAMPLE_ORDERS": json.dumps({"conn_type": "sqlite", "host": str(shop)}),
    }
    with story.doing("making orders"):
        poisoned = make_orders(shop, count=orders)
    story.step(f"{orders:,} orders made, {poisoned} of them poisoned (their amount is no number)")
    with DemoAirflow(folder / "airflow", environment) as airflow:
        with story.doing("starting Airflow"):
            shutil.copy(dag_file(), airflow.dags)
            airflow.start()
            airflow.wait_until_ready(DAG_ID)
        story.step("Airflow runs: scheduler, API server and DAG processor")
        airflow.api.trigger(DAG_ID, _RUN_ID)
        task = WatchedTask(airflow=airflow, story=story, orders=orders)
        task.kill_half_way()
        report = task.see_it_resume()
    proof = examine(output, letters, made=order_ids(shop))
    story.findings(proof, report)
    objections = [*proof.objections, *_objections(report, orders=orders, poisoned=poisoned)]
    story.objections(objections)
    if not objections:
        story.reconciled(made=orders, exported=len(proof.exported), letters=len(proof.letters))
    story.end("nothing lost, nothing doubled" if not objections else "the demo FAILED")
    return not objections


def _objections(report: dict[str, Any], *, orders: int, poisoned: int) -> list[str]:
    counts = report["counts"]
    expected = {"read": orders, "written": orders - poisoned, "dead_lettered": poisoned}
    found = [
        f"the report says {name} = {counts[name]:,}, expected were {number:,}"
        for name, number in expected.items()
        if counts[name] != number
    ]
    if report["legs"] < 2:  # noqa: PLR2004  # one before the kill, one after it
        found.append("the run had one leg only: it was not resumed")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedTask:
    """The export's task instance, seen through the REST API.

    :param airflow: where it runs.
    :param story: who is told.
    :param orders: how many records it will read.
    """

    airflow: DemoAirflow
    story: Story
    orders: int

    def kill_half_way(self) -> None:
        """Watch the first try, and SIGKILL its process once it has done almost half of its work.

        :raises PermanentError: the task was through before it could be killed.
        """
        task, progress = self._watch("try 1", lambda _, progress: self._read(progress) >= self._kill_at)
        process = self.airflow.task_process(task["id"])
        if process is None:
            raise PermanentError(f"the task's process was not found: the task is {task['state']} already")
        process.kill()
        self.story.blow(
            f"SIGKILL to process {process.pid}, which runs the task, at {self._read(progress):,} orders"
        )

    def see_it_resume(self) -> dict[str, Any]:
        """Watch Airflow retry, and return the task's report.

        :raises PermanentError: the task failed.
        """
        store = self.airflow.api.state_store(DAG_ID, _RUN_ID, TASK_ID)
        saved = decode(store[_CHECKPOINT_KEY]).counts.read
        self.story.step(f"the checkpoint in Airflow's task state store stands at {saved:,}")
        self._watch(
            "waiting for the retry", lambda task, _: task["try_number"] > 1 and task["state"] == "running"
        )
        self.story.step(f"Airflow retries: try 2 goes on after record {saved:,}")
        self._watch("try 2", lambda task, _: task["state"] == "success")
        self.story.step("the task succeeded, and its output was published in one step")
        return self.airflow.api.returned(DAG_ID, _RUN_ID, TASK_ID)

    @property
    def _kill_at(self) -> int:
        return int(self.orders * _KILL_AT)

    @staticmethod
    def _read(progress: dict[str, Any]) -> int:
        return int(progress.get("read", 0))

    def _watch(
        self, what: str, until: Callable[[dict[str, Any], dict[str, Any]], bool]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Show the task's progress until a condition holds; return the task and its progress then."""
        deadline = time.monotonic() + _SECONDS
        with self.story.moving(self.orders) as bar:
            while True:
                task = self.airflow.api.task(DAG_ID, _RUN_ID, TASK_ID)
                progress = self.airflow.api.state_store(DAG_ID, _RUN_ID, TASK_ID).get("progress", {})
                bar.show(what, progress)
                if until(task, progress):
                    return task, progress
                if task["state"] in {"failed", "success", "upstream_failed"}:
                    raise PermanentError(f"{what}: the task ended {task['state']} unexpectedly")
                if time.monotonic() > deadline:
                    raise TransientError(f"{what}: the task is still {task['state']} after {_SECONDS:.0f} s")
                time.sleep(_LOOK_EVERY)
