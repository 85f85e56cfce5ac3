"""A task instance that is running as far as Airflow's API can tell, without a task: for stores and hooks."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.airflow import run_dag

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class FakeTask:
    """What ``context["ti"]`` tells of itself."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1
    max_tries: int = 0
    try_number: int = 1
    xcoms: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep the value."""
        self.xcoms[key] = value


@contextmanager
def running_task(dag_id: str) -> Iterator[dict[str, Any]]:
    """Give the context of a task instance of the tests' database, with Airflow's API in this process."""
    import psutil
    import structlog
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG
    from airflow.sdk.execution_time.context import TaskStateStoreAccessor
    from airflow.sdk.execution_time.supervisor import (
        InProcessSupervisorComms,
        InProcessTestSupervisor,
        set_supervisor_comms,
    )
    from airflow.sdk.state import TaskScope
    from airflow.utils.session import create_session

    with DAG(dag_id, schedule=None) as dag:
        EmptyOperator(task_id="task")
    run = run_dag(dag)
    with create_session() as session:
        instance = run.get_task_instance("task", session=session)
    assert instance is not None
    supervisor = InProcessTestSupervisor(
        id=instance.id,
        pid=os.getpid(),
        process=psutil.Process(),  # type: ignore[arg-type]  # as dag.test() does
        process_log=structlog.get_logger(),
        client=InProcessTestSupervisor._api_client(),  # type: ignore[no-untyped-call]  # Airflow's own
    )
    supervisor.comms = InProcessSupervisorComms(supervisor=supervisor)
    scope = TaskScope(dag_id=dag_id, run_id=run.run_id, task_id="task", map_index=-1)
    with set_supervisor_comms(supervisor.comms):
        yield {
            "ti": FakeTask(dag_id=dag_id, task_id="task", run_id=run.run_id),
            "task_state_store": TaskStateStoreAccessor(instance.id, scope),
        }


def another_instance(context: dict[str, Any]) -> None:
    """Give the task instance another id, as a retry and a clear do: its process is superseded."""
    import uuid6
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import update

    task = context["ti"]
    with create_session() as session:
        session.execute(
            update(TaskInstance)
            .where(TaskInstance.dag_id == task.dag_id, TaskInstance.run_id == task.run_id)
            .values(id=uuid6.uuid7())
        )
