"""Runs the DAG of a file for a date, as ``airflow dags test`` does, in a process that can be killed.

``python -m tests.support.run_dag_file`` imports Airflow once, which takes long, and then forks a process for
each line of its standard input; :mod:`tests.support.dag_runs` writes them.
"""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import sys
from datetime import datetime
from pathlib import Path
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


def run_file(*, file: str, date: str, output: str, result: str, environment: dict[str, str]) -> None:
    """Run the one DAG of a file.

    :param output: file for what is printed.
    :param result: file for how the task ended and what it returned, as JSON.
    """
    from airflow.sdk import DAG

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.update(environment)
    with Path(output).open("wb", buffering=0) as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    (dag,) = (value for value in runpy.run_path(file).values() if isinstance(value, DAG))
    run = run_dag(dag, logical_date=datetime.fromisoformat(date))
    Path(result).write_text(json.dumps(returned(run)))


async def warm_up() -> None:
    """Have Airflow's API make itself ready, which takes long; no thread is left: no child would have it."""
    import httpx
    from airflow.sdk.execution_time.supervisor import in_process_api_server

    api = in_process_api_server()
    async with httpx.AsyncClient(transport=api.atransport, base_url="http://in-process.invalid") as client:
        await client.get("/nothing")


def main() -> None:
    """Fork a process for each line, and say its id."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Airflow prints goes to standard error
    asyncio.run(warm_up())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run_file(**json.loads(line))
            return
        answers.write(f"{child}\n")
        answers.flush()


if __name__ == "__main__":
    main()
