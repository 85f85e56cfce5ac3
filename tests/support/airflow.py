"""Airflow inside the test process: its environment, its database, and a way to run a DAG made in a test."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.models.dagrun import DagRun
    from airflow.sdk import DAG

BUNDLE = "tests"
_OWN_HOME = "BATCHKIT_TEST_AIRFLOW_HOME"


def settings(home: Path, dags: Path) -> dict[str, str]:
    """Return the variables of an Airflow that keeps all it has below ``home`` and knows only ``dags``."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__API_AUTH__JWT_SECRET": "signs only what the tests send to themselves, with HS512; 64 bytes",
    }


def prepare_environment() -> None:
    """Give this process an Airflow home of its own; must come before the first ``import airflow``."""
    # Each process of a parallel run has a database of its own; what a test starts shares that of its test.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if os.environ.get(_OWN_HOME, "").endswith(f"-{worker}"):
        return
    home = Path(tempfile.mkdtemp(prefix="batchkit-airflow-", suffix=f"-{worker}"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    dags = home / "dags"
    dags.mkdir()
    os.environ.update(settings(home, dags))
    os.environ[_OWN_HOME] = str(home)


def make_database() -> None:
    """Make the metadata database of this process and the bundle that the tests' DAGs belong to."""
    with warnings.catch_warnings():
        # What Airflow and its dependencies warn of at import is theirs to mend.
        warnings.simplefilter("ignore")
        from airflow.models.dagbundle import DagBundleModel
        from airflow.utils.db import initdb
        from airflow.utils.session import create_session

        initdb()
        with create_session() as session:
            session.merge(DagBundleModel(name=BUNDLE))


def run_dag(dag: DAG, *, conf: Mapping[str, Any] | None = None, **arguments: Any) -> DagRun:
    """
    Run a DAG that was made in a test, in this process, and return its run.

    :param conf: the run's configuration, as the trigger form sends it
    :param arguments: handed to ``DAG.test`` (``logical_date``, ``mark_success_pattern``)
    """
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    bag = DagBag(dag_folder=os.devnull, collect_dags=False)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, BUNDLE, None)
    run: DagRun = dag.test(run_conf=dict(conf or {}), **arguments)
    return run
