"""What a task's process leaves for its DAG's callback."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_batchkit.notifications import told
from airflow_batchkit.notifications.destination import SlackDestination
from airflow_batchkit.notifications.incident import Incident
from airflow_batchkit.notifications.once import claimed

HERE = SlackDestination(conn_id="slack", channel="#data")
ELSEWHERE = SlackDestination(conn_id="slack", channel="#other")


def incident(try_number: int = 1) -> Incident:
    """Make an incident of a task's try."""
    return Incident(kind="task_failed", dag_id="d", run_id="r", task_id="t", try_number=try_number)


class Instance(SimpleNamespace):
    """A task instance whose XComs can be looked at."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__(task_id="t", map_index=-1, xcoms={}, broken=broken, looked=threading.Event())

    def xcom_push(self, *, key: str, value: Any) -> None:
        """Keep a value."""
        self._refuse()
        self.xcoms[key] = value

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int) -> Any:
        """Return a value."""
        self._refuse()
        assert (task_ids, map_indexes) == ("t", -1)
        self.looked.set()
        return self.xcoms.get(key)

    def _refuse(self) -> None:
        if self.broken:
            raise RuntimeError("no XComs here")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(told, "APPEARS_WITHIN", 0.05)
    monkeypatch.setattr(told, "_LOOK_EVERY", 0.01)


def from_task(ti: Instance) -> dict[str, Any]:
    """Make the context that a task's own process has."""
    return {"ti": ti, "exception": ValueError()}


def test_what_was_told_is_known() -> None:
    """The DAG's callback finds what the task told of the same try to the same place, and nothing else."""
    ti = Instance()
    told.mark(from_task(ti), incident(), HERE, "told")

    assert told.told_by_the_task({"ti": ti}, incident(), HERE)
    assert not told.told_by_the_task({"ti": ti}, incident(), ELSEWHERE)
    assert not told.told_by_the_task({"ti": ti}, incident(try_number=2), HERE)


def test_it_waits_while_the_task_is_telling() -> None:
    """A message that is on its way is waited for."""
    ti = Instance()
    told.mark(from_task(ti), incident(), HERE, "telling")
    found: list[bool] = []
    dag = threading.Thread(target=lambda: found.append(told.told_by_the_task({"ti": ti}, incident(), HERE)))
    dag.start()
    assert ti.looked.wait(5)

    told.mark(from_task(ti), incident(), HERE, "told")
    dag.join(5)

    assert found == [True]


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that died while it was telling has not told."""
    monkeypatch.setattr(told, "ENDS_WITHIN", 0.05)
    ti = Instance()
    told.mark(from_task(ti), incident(), HERE, "telling")

    assert not told.told_by_the_task({"ti": ti}, incident(), HERE)


def test_on_one_machine_the_marker_is_enough() -> None:
    """A task's callback in the dag-processor, which may not write XComs, is found by its marker file."""
    with claimed(told.alert_key(incident(), HERE)):
        pass
    of_run = Incident(kind="run_failed", dag_id="d", run_id="r", task_id="t", try_number=1)

    assert told.told_by_the_task({"ti": Instance(broken=True)}, of_run, HERE)
    assert not told.told_by_the_task({"ti": Instance()}, of_run, ELSEWHERE)


def test_the_dag_processor_writes_nothing() -> None:
    """Only a task's own process, which has the exception, may write its XComs."""
    ti = Instance()
    told.mark({"ti": ti}, incident(), HERE, "told")

    assert ti.xcoms == {}


def test_trouble_with_xcoms_silences_nobody() -> None:
    """Where XComs cannot be written or read, a thing may be told twice, but it is told."""
    ti = Instance(broken=True)
    told.mark(from_task(ti), incident(), HERE, "told")

    assert not told.told_by_the_task({"ti": ti}, incident(), HERE)
    whole_run = Incident(kind="run_failed", dag_id="d", run_id="r")
    assert not told.told_by_the_task({}, whole_run, HERE)
