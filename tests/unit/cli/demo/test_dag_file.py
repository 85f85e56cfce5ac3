"""The demo runs the example that people read."""

from __future__ import annotations

from airflow_batchkit.cli.demo.dag_file import DAG_ID, TASK_ID, dag_file


def test_demo_runs_the_embedded_example() -> None:
    """In a checkout the DAG is the one in dags/, with the ids that the demo asks Airflow for."""
    file = dag_file()
    assert file.parent.name == "dags"
    text = file.read_text(encoding="utf-8")
    assert f'"{DAG_ID}"' in text
    assert f'task_id="{TASK_ID}"' in text
