"""Exports of orders that can be held, or interrupted, at any side effect: for tests of runs that go wrong.

A run's ``conf`` tells it all: ``folder`` (for the output, and for the files by which test and task talk to
each other), ``records`` (how many), ``hold`` (``"before sink.put 6"``), ``interrupt`` (how many legs).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG  # noqa: TID253 - this file is parsed by Airflow only
from typing_extensions import override

from airflow_batchkit import (
    BatchPipelineOperator,
    BatchPolicy,
    BatchRetry,
    DeadLetters,
    ElasticsearchToS3Operator,
    ErrorBudget,
    ObjectStorageSink,
    RateLimit,
    RecordError,
    SqlSource,
)
from airflow_batchkit.engine.exceptions import TransientError
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.operators.base import BatchkitOperator

HOLD_SECONDS = 240
FOLDER = "{{ dag_run.conf.folder }}/{{ ti.task_id }}"


def own_folder(context: Any) -> Path:
    """Return the folder of one task in one run."""
    folder = Path(context["dag_run"].conf["folder"], context["ti"].task_id)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def note(callback: str) -> Callable[[Any], None]:
    """Return a callback that leaves a file behind."""

    def leave(context: Any) -> None:
        (own_folder(context) / f"{callback}.callback").touch()

    return leave


class Hold:
    """Waits at one side effect, in the first leg that comes there, until the test says ``go``."""

    def __init__(self, folder: Path, moment: str) -> None:
        self._folder = folder
        self._when, self._name, number = moment.split()
        self._left = int(number)
        self._lock = threading.Lock()

    def __call__(self, name: str, when: str) -> None:
        """Be a probe."""
        if (self._when, self._name) != (when, name):
            return
        with self._lock:
            self._left -= 1
            if self._left != 0 or (self._folder / "held").exists():
                return
            (self._folder / "held").write_text(str(os.getpid()))
        deadline = time.monotonic() + HOLD_SECONDS
        while not (self._folder / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        (self._folder / "gone").touch()


class Interruption:
    """Ends the first few legs: by SIGTERM at their first write, or by a lost connection at their fourth."""

    def __init__(self, folder: Path, legs: int, *, by_signal: bool) -> None:
        self._folder = folder
        self._by_signal = by_signal
        self._number = len(list(folder.glob("*.interruption"))) + 1
        self._left = 1 if by_signal else 4
        self._wanted = self._number <= legs

    def __call__(self, name: str, when: str) -> None:
        """Be a probe."""
        if not self._wanted or (name, when) != ("sink.put", "before"):
            return
        self._left -= 1
        if self._left != 0:
            return
        (self._folder / f"{self._number}.interruption").touch()
        if not self._by_signal:
            raise TransientError("the connection was reset")
        os.kill(os.getpid(), signal.SIGTERM)


class Interruptible(BatchkitOperator):
    """Lets the run's ``conf`` interfere, and writes down how a leg ended."""

    @override
    def execute(self, context: Any) -> dict[str, Any]:
        """Run one leg."""
        conf, folder = context["dag_run"].conf, own_folder(context)
        with ExitStack() as probes:
            if "hold" in conf:
                probes.enter_context(probing(Hold(folder, conf["hold"])))
            if "interrupt" in conf:
                by_signal = self.task_id.startswith("signalled")
                probes.enter_context(probing(Interruption(folder, conf["interrupt"], by_signal=by_signal)))
            try:
                return super().execute(context)
            except BaseException as error:
                (folder / f"{os.getpid()}.ended").write_text(type(error).__name__)
                raise


class Export(Interruptible, BatchPipelineOperator):
    """Orders out of a table into a folder."""


class DocumentExport(Interruptible, ElasticsearchToS3Operator):
    """Documents out of Elasticsearch into a bucket."""


def export(task_id: str = "export", **settings: Any) -> Export:
    """Make a task of small batches that may be tried twice."""
    return Export(
        **{
            "task_id": task_id,
            "source": SqlSource(
                conn_id="exporting", table="orders", where="id <= {{ dag_run.conf.records }}"
            ),
            "sink": ObjectStorageSink(url=f"file://{FOLDER}/out"),
            "batch": BatchPolicy(max_records=50),
            "retries": 1,
            "retry_delay": timedelta(seconds=1),
            # Far away: the test raises the alarm itself, at the moment that it wants to see.
            "execution_timeout": timedelta(minutes=10),
            "on_failure_callback": note("failure"),
            "on_retry_callback": note("retry"),
            **settings,
        }
    )


def with_number(order: dict[str, Any]) -> dict[str, Any]:
    """Refuse orders whose amount is no number."""
    if not order["amount"].isdigit():
        raise RecordError("the amount is no number")
    return order


with DAG("exporting", schedule=None):
    export()

with DAG("exporting_poisoned", schedule=None):
    export(
        transform=with_number,
        error_budget=ErrorBudget(max_dead_letters=3),
        dead_letters=DeadLetters(f"file://{FOLDER}/letters"),
        retries=2,
    )

with DAG("exporting_slowly", schedule=None):
    # One record is let through, the next would have to wait for 33 s: longer than a slot is kept for.
    export(throttle=RateLimit(records_per_second=0.03), batch=BatchPolicy(max_records=1), retries=0)

with DAG("exporting_in_a_row", schedule=None):
    for name in ("signalled_1", "signalled_2", "signalled_3", "cut_off_1", "cut_off_2", "cut_off_3"):
        export(name, batch=BatchPolicy(max_records=20), batch_retry=BatchRetry(max_tries=1))

with DAG(
    "exporting_daily",
    schedule="@daily",
    start_date=datetime(2026, 3, 1, tzinfo=UTC),
    end_date=datetime(2026, 3, 4, tzinfo=UTC),
    catchup=False,
):
    export(
        source=SqlSource(conn_id="exporting", table="orders", where="day = '{{ ds }}'"),
        sink=ObjectStorageSink(url=f"file://{FOLDER}/ds={{{{ ds }}}}"),
    )

with DAG("exporting_documents", schedule=None):
    DocumentExport(
        task_id="export",
        elasticsearch_conn_id="exporting_elasticsearch",
        index="{{ dag_run.conf.index }}",
        aws_conn_id="exporting_s3",
        s3_bucket="{{ dag_run.conf.bucket }}",
        s3_prefix="orders/{{ run_id | replace(':', '_') }}",
        batch=BatchPolicy(max_records=50),
        retries=1,
        retry_delay=timedelta(seconds=1),
    )
