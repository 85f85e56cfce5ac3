"""Variables are named after their task, checked for shadows, and never mistaken for absent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from airflow_batchkit.engine.exceptions import PermanentError, TransientError
from airflow_batchkit.hooks.airflow_thread import AirflowThread
from airflow_batchkit.stores.variable import TaskScope, VariableStore
from tests.support.running_task import running_task

if TYPE_CHECKING:
    from collections.abc import Iterator

SCOPE = TaskScope(dag_id="orders", task_id="group.export", run_id="scheduled__2026-01-02T00:00:00+00:00")


@pytest.fixture
def store(airflow_database: None) -> Iterator[VariableStore]:
    """Give a store of a task that runs."""
    del airflow_database
    with running_task("variables"), AirflowThread() as airflow:
        yield VariableStore(SCOPE, airflow=airflow)


def name(key: str, **changes: Any) -> str:
    """Return the name of a Variable."""
    fields: dict[str, Any] = {"dag_id": "orders", "task_id": "export", "run_id": "r"} | changes
    return VariableStore(TaskScope(**fields), airflow=AirflowThread()).name(key)


def test_names_are_readable() -> None:
    """A person who looks at the list of Variables can tell whose each is."""
    assert (
        VariableStore(SCOPE, airflow=AirflowThread())
        .name("batchkit_checkpoint")
        .startswith("batchkit_checkpoint.orders.group.export.scheduled__2026-01-02T00_00_00+00_00.-1.")
    )


def test_everything_tells_names_apart() -> None:
    """Another mode, DAG, task, run or map index is another Variable."""
    names = [
        name("key"),
        name("key.local"),
        name("key", dag_id="other"),
        name("key", task_id="other"),
        name("key", run_id="other"),
        name("key", map_index=0),
        name("key", run_id="a:b"),
        name("key", run_id="a/b"),
    ]
    assert len(set(names)) == len(names)


@given(st.text(max_size=300), st.text(max_size=300))
def test_names_fit(dag_id: str, run_id: str) -> None:
    """Whatever the ids are, the name fits Airflow's 250 characters and needs no escaping."""
    made = name("key", dag_id=dag_id, run_id=run_id)
    assert len(made) <= 240
    assert made.isascii()
    assert "/" not in made


@pytest.mark.airflow
def test_shadowed_variable_is_refused(store: VariableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment variable of the same name hides what is saved: no run may trust that."""
    monkeypatch.setenv(f"AIRFLOW_VAR_{store.name('key').upper()}", "something else")
    with pytest.raises(PermanentError, match="was saved but reads differently"):
        store.save("key", "value")


@pytest.mark.airflow
def test_failing_api_is_not_an_absent_value(store: VariableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """``Variable.get`` says "not found" when the API fails; a run of hours must not begin anew for that."""
    from airflow.sdk.api.client import VariableOperations

    store.save("key", "value")

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(VariableOperations, "get", unreachable)
    with pytest.raises(TransientError):
        store.load("key")
