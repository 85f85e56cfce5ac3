"""A real Airflow for the tests: ``airflow standalone`` with its own home, ports and process ids."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.support.airflow import settings
from tests.support.airflow_api import AirflowApi
from tests.support.processes import (
    ServerError,
    end,
    ends_with_parent,
    family,
    free_port,
    last_lines,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


class AirflowStandalone(AirflowApi):
    """
    One ``airflow standalone`` of the tests' own: LocalExecutor, SQLite, heartbeats that are missed soon.

    :param home: an empty folder for its database, logs and password file
    :param dags: its folder of DAG files
    :param environment: further variables for all its processes (``AIRFLOW_CONN_…``)
    """

    def __init__(self, home: Path, dags: Path, *, environment: Mapping[str, str] | None = None) -> None:
        self._port = free_port()
        super().__init__(f"http://127.0.0.1:{self._port}")
        self.home = home.resolve()
        self._dags = dags
        self._environment = dict(environment or {})
        self._parent: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        """All that its scheduler, API server, DAG processor and triggerer have printed so far."""
        return self._log.read_text(errors="replace")

    def start(self, *, seconds: float = 180) -> None:
        """Start it and wait until all four parts say that they are healthy."""
        with self._log.open("wb") as log:
            self._parent = subprocess.Popen(
                [*ends_with_parent("INT"), sys.executable, "-m", "airflow", "standalone"],
                cwd=self.home,
                env={**os.environ, **self._settings(), **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(self._healthy, seconds=seconds, what="airflow standalone to be healthy", every=0.5)
        except ServerError as error:
            self.stop()
            raise ServerError(f"{error}; its output ends with:\n{last_lines(self._log)}") from None

    def stop(self) -> None:
        """End all its processes, each by its id; tasks that still run are ended too."""
        if self._parent is not None:
            end(self.processes(), grace=4)
            end(self.processes(), grace=2)
            self._parent.wait(timeout=10)
            self._parent = None

    def processes(self) -> list[psutil.Process]:
        """Return its descendants, and the processes that lost their parent but work in its home."""
        found = {process.pid: process for process in family(self._parent.pid)} if self._parent else {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.cwd() == str(self.home):
                    found[process.pid] = process
        return list(found.values())

    @property
    def _log(self) -> Path:
        return self.home / "standalone.log"

    def _settings(self) -> dict[str, str]:
        return settings(self.home, self._dags) | {
            # It starts its parts by the bare name `airflow`.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "NO_COLOR": "1",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self._port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "25",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        }

    def _healthy(self) -> bool:
        if self._parent is None or self._parent.poll() is not None:
            raise ServerError("airflow standalone ended by itself")
        try:
            health = self.request("GET", "/monitor/health", timeout=5)
        except OSError:
            return False
        return all(health[part]["status"] == "healthy" for part in _PARTS)
