"""Runs of the DAGs in ``tests/dags/exporting.py``: started, held, let go, and what they published."""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.support.airflow_api import Run, Task
from tests.support.object_storage import Place, S3Connections
from tests.support.processes import ServerError, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.support.standalone import AirflowStandalone

RECORDS = 600
DAYS = ("2026-03-01", "2026-03-02", "2026-03-03")
_ALWAYS = {"_SUCCESS", "_batchkit/owner.json", "manifest.json"}

Order = dict[str, Any]


def order(number: int) -> Order:
    """Return one made-up order; of each hundred, one has an amount that is no number."""
    amount = "a lot" if number % 100 == 99 else str(number)
    return {"id": number, "day": DAYS[number % len(DAYS)], "amount": amount}


def published(place: Place) -> list[Any]:
    """Return what a place shows to its readers, and insist that nothing else lies there."""
    manifest = place.manifest()
    assert sorted(place.names()) == sorted(_ALWAYS | {part["key"] for part in manifest["parts"]})
    return [json.loads(line) for line in place.lines()]


def as_lines(orders: Iterable[Order]) -> list[Order]:
    """Return the lines that a whole export of some orders has."""
    return [{"_id": str(each["id"]), **each} for each in orders]


@dataclass(frozen=True)
class Export:
    """One run and one of its tasks.

    :param run: the run.
    :param task: the task.
    :param folder: the task's own.
    """

    run: Run
    task: Task
    folder: Path

    @property
    def place(self) -> Place:
        """Where the output goes."""
        return Place(url=f"file://{self.folder}/out", connections=S3Connections(endpoint_url=""))

    @property
    def report(self) -> dict[str, Any]:
        """What the task returned."""
        report: dict[str, Any] = self.task.xcoms()["return_value"]
        return report

    @property
    def resumed_after(self) -> int:
        """How many records the latest try passed over because an earlier leg had done them."""
        found = re.search(r"resumes after ([\d,]+) records", self.task.log())
        return int(found[1].replace(",", "")) if found else 0

    @property
    def saved(self) -> int:
        """How many records the checkpoint says are done."""
        return int(self.checkpoint().get("counts", {}).get("read", 0))

    @property
    def callbacks(self) -> set[str]:
        """The callbacks that Airflow made for the task."""
        return {path.stem for path in self.folder.glob("*.callback")}

    @property
    def try_states(self) -> list[str]:
        """How each try ended."""
        return [str(attempt["state"]) for attempt in self.task.tries()]

    def checkpoint(self) -> dict[str, Any]:
        """Return the checkpoint as it is stored now, empty before there is one."""
        stored = self.task.store().get("batchkit_checkpoint")
        if stored is None:
            return {}
        checkpoint: dict[str, Any] = json.loads(stored)["checkpoint"]
        return checkpoint

    def held(self, *, saved: bool = False) -> psutil.Process:
        """
        Wait until the task is held where ``hold`` says, and return its process.

        :param saved: wait also until some progress is saved
        """
        self._wait_for_file("held", seconds=120)
        if saved:
            wait_until(lambda: self.saved > 0, seconds=20, what="saved progress")
        return psutil.Process(int((self.folder / "held").read_text()))

    def go(self) -> None:
        """Let the task go on from where it is held."""
        (self.folder / "go").touch()

    def wait_until_gone_on(self) -> None:
        """Wait until the task has left the place where it was held."""
        self._wait_for_file("gone", seconds=20)

    def wait_until_ended(self, process: psutil.Process) -> str:
        """Wait until the leg in a process has ended, and return the name of what it raised."""
        self._wait_for_file(f"{process.pid}.ended", seconds=60)
        return (self.folder / f"{process.pid}.ended").read_text()

    def _wait_for_file(self, name: str, *, seconds: float) -> None:
        try:
            wait_until((self.folder / name).exists, seconds=seconds, what=f"{self.run.dag_id}: {name}")
        except ServerError as error:
            raise ServerError(f"{error}; the log of the task:\n{self.task.log()}") from None


class Exports:
    """Starts runs on one Airflow, each with a folder of its own."""

    def __init__(self, airflow: AirflowStandalone, folder: Path) -> None:
        self.airflow = airflow
        self._folder = folder
        self._number = itertools.count(1)
        database = folder / "orders.db"
        make_orders(database)
        airflow.put_connection("exporting", json.dumps({"conn_type": "sqlite", "host": str(database)}))

    def start(
        self, dag_id: str = "exporting", *, task_id: str = "export", folder: Path | None = None, **conf: Any
    ) -> Export:
        """
        Start a run, without a logical date.

        :param folder: that of another run, to publish at the same place. Default: a new one
        :param conf: what the DAG file reads: ``hold``, ``records``, …
        """
        folder = folder or self.new_folder()
        run = self.airflow.trigger(dag_id, conf={"folder": str(folder), "records": RECORDS, **conf})
        return Export(run, run.task(task_id), folder / task_id)

    def new_folder(self) -> Path:
        """Return a folder that no other run has."""
        return self._folder / f"run-{next(self._number)}"

    def mismatches(self, export: Export) -> list[Mapping[str, Any]]:
        """Return the scheduler's complaints about tasks that ended otherwise than their processes said."""
        query = f"?dag_id={export.run.dag_id}&event=state+mismatch"
        found: list[Mapping[str, Any]] = self.airflow.request("GET", f"/eventLogs{query}")["event_logs"]
        return [entry for entry in found if entry["run_id"] == export.run.run_id]


def make_orders(database: Path) -> None:
    """Write the table that the runs read."""
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, day TEXT, amount TEXT)")
    rows = [tuple(order(number).values()) for number in range(1, RECORDS + 1)]
    connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", rows)
    connection.commit()
    connection.close()


ALL = as_lines(order(number) for number in range(1, RECORDS + 1))
