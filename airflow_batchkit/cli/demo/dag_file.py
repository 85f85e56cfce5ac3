"""The embedded example: one file, in ``dags/`` of a checkout, and inside the package once it is built."""

from __future__ import annotations

from pathlib import Path

from airflow_batchkit.engine.exceptions import UsageError

NAME = "example_embedded.py"
DAG_ID = "example_embedded"
TASK_ID = "export_orders"


def dag_file() -> Path:
    """Return the file.

    :raises UsageError: neither is there.
    """
    here = Path(__file__).resolve()
    # The wheel takes the file from dags/ (pyproject: force-include), so there is only one to edit.
    for folder in (here.parents[3] / "dags", here.parent):
        if (folder / NAME).is_file():
            return folder / NAME
    raise UsageError(f"{NAME} is neither in dags/ nor in the package: install airflow-batchkit again")
