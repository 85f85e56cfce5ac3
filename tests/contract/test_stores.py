"""Every place for checkpoints passes the store contract, on real Airflow where it is Airflow's."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from airflow_batchkit.hooks.airflow_thread import AirflowThread
from airflow_batchkit.stores.file import FileStore
from airflow_batchkit.stores.task_state import TaskStateStore
from airflow_batchkit.stores.variable import TaskScope, VariableStore
from airflow_batchkit.testing.contract import ConditionalStoreContract, StoreContract
from airflow_batchkit.testing.doubles import MemoryStore
from tests.support.object_storage import make_place
from tests.support.running_task import running_task
from tests.support.targets import store_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_batchkit.testing.contract.store import MakeStore

_number = itertools.count()


@pytest.fixture
def task(airflow_database: None) -> Iterator[dict[str, Any]]:
    """Give the context of a task of the test's own."""
    del airflow_database
    with running_task(f"store_contract_{next(_number)}") as context:
        yield context


@pytest.fixture
def airflow(task: dict[str, Any]) -> Iterator[AirflowThread]:
    """Give the thread that makes the calls of that task."""
    del task
    with AirflowThread() as thread:
        yield thread


class TestMemoryStore(StoreContract):
    @override
    @pytest.fixture
    def make_store(self) -> MakeStore:
        store = MemoryStore()
        return lambda: store


class TestFileStore(StoreContract):
    @override
    @pytest.fixture
    def make_store(self, tmp_path: Path) -> MakeStore:
        return lambda: FileStore(tmp_path / "checkpoints")


class TestTargetStore(ConditionalStoreContract):
    @override
    @pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
    def make_store(self, request: pytest.FixtureRequest) -> MakeStore:
        place = make_place(request.param, request)
        return lambda: store_at(place)


@pytest.mark.airflow
class TestTaskStateStore(StoreContract):
    @override
    @pytest.fixture
    def make_store(self, task: dict[str, Any], airflow: AirflowThread) -> MakeStore:
        state = task["task_state_store"]
        return lambda: TaskStateStore(state, airflow=airflow, retention=timedelta(days=8))


@pytest.mark.airflow
class TestVariableStore(StoreContract):
    @override
    @pytest.fixture
    def make_store(self, task: dict[str, Any], airflow: AirflowThread) -> MakeStore:
        instance = task["ti"]
        scope = TaskScope(dag_id=instance.dag_id, task_id=instance.task_id, run_id=instance.run_id)
        return lambda: VariableStore(scope, airflow=airflow)
