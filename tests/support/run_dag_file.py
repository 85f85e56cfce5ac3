"""Runs the DAG of a file for a date, as ``airflow dags test`` does, in a process that can be killed.

``python -m tests.support.run_dag_file FILE DATE`` prints as JSON how the task ended and what it returned.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.support.airflow import prepare_environment, run_dag

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

prepare_environment()


def returned(run: DagRun) -> dict[str, Any]:
    """Return what the run's one task returned, and how it ended."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        (instance,) = run.get_task_instances(session=session)
        value = session.scalar(
            XComModel.get_many(run_id=run.run_id, key="return_value", dag_ids=run.dag_id).with_only_columns(
                XComModel.value
            )
        )
    return {"state": instance.state, "value": value}


def main() -> None:
    """Run the one DAG of the file."""
    from airflow.sdk import DAG

    file, date = sys.argv[1:]
    result = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Airflow prints goes to standard error
    (dag,) = (value for value in runpy.run_path(file).values() if isinstance(value, DAG))
    run = run_dag(dag, logical_date=datetime.fromisoformat(date))
    with result:
        json.dump(returned(run), result)


if __name__ == "__main__":
    main()
