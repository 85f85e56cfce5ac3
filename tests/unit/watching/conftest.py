"""What the tests of a whole check share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_batchkit.watching import api as api_module
from tests.support.airflow_answers import AirflowAnswers
from tests.support.watching import Watch


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Give a watch over an Airflow with one nightly DAG in order."""
    monkeypatch.setattr(api_module, "_PAUSE_SECONDS", 0.0)
    with AirflowAnswers() as airflow:
        airflow.add_dag(next_dagrun_run_after="2026-11-24T00:00:00Z")
        airflow.add_run(run_after="2026-11-23T00:00:00Z", end_date="2026-11-23T00:01:00Z")
        yield Watch(airflow)
