"""A real Airflow for the tests: ``airflow standalone`` with its own home, ports and process ids."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.support.airflow import settings
from tests.support.airflow_api import AirflowApi
from tests.support.processes import (
    ServerError,
    end,
    ends_with_parent,
    family,
    free_port,
    kill,
    last_lines,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


class AirflowStandalone(AirflowApi):
    """
    One ``airflow standalone`` of the tests' own: LocalExecutor, SQLite, heartbeats that are missed soon.

    Tasks have an API server of their own. In one process with the tests' requests, each locks the other out
    of SQLite until its timeout: the event loop logs a request in the database (3.3.2), where it waits for a
    task's transaction, whose end waits for the event loop.

    :param home: an empty folder for its database, logs and password file
    :param dags: its folder of DAG files
    :param environment: further variables for all its processes (``AIRFLOW_CONN_…``)
    """

    def __init__(self, home: Path, dags: Path, *, environment: Mapping[str, str] | None = None) -> None:
        self._port, self._port_for_tasks = free_port(), free_port()
        super().__init__(f"http://127.0.0.1:{self._port}")
        self.home = home.resolve()
        self.dags = dags
        self._environment = dict(environment or {})
        self._parents: list[subprocess.Popen[bytes]] = []
        self._server_for_tasks: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        """All that its scheduler, API server, DAG processor and triggerer have printed so far."""
        return self._log.read_text(errors="replace")

    def start(self, *, seconds: float = 180) -> None:
        """Start it and wait until all four parts say that they are healthy."""
        self._run("standalone")
        try:
            wait_until(lambda: bool(self._answer()), seconds=seconds, what="the API server", every=0.5)
            # Not earlier: it ends at once where there is no database.
            self.start_server_for_tasks()
            wait_until(self._healthy, seconds=seconds, what="airflow standalone to be healthy", every=0.5)
        except ServerError as error:
            self.stop()
            raise ServerError(f"{error}; its output ends with:\n{last_lines(self._log)}") from None

    def start_server_for_tasks(self) -> None:
        """Start the API server that tasks talk to, also after :meth:`kill_server_for_tasks`."""
        self._server_for_tasks = self._run(
            "api-server", "--apps", "execution", "--port", str(self._port_for_tasks)
        )

    def kill_server_for_tasks(self) -> None:
        """Kill the API server that tasks talk to, and wait until it is gone."""
        server = self._server_for_tasks
        assert server is not None
        kill(family(server.pid))
        server.wait(timeout=10)
        self._parents.remove(server)

    def kill_scheduler(self) -> None:
        """
        Kill the scheduler and the tasks it runs, and wait until they are gone; the rest of Airflow stays.

        SIGTERM would have it wait for its tasks, and another test may have left one that takes its time.
        """
        for process in [process for scheduler in self._schedulers() for process in family(scheduler.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        # Not until it has no process id: its parent, which reads its output, leaves it a zombie for a while.
        wait_until(lambda: not self._schedulers(), seconds=60, what="the end of the scheduler")

    def start_scheduler(self) -> None:
        """Start a scheduler, if :meth:`kill_scheduler` left none."""
        if not self._schedulers():
            self._run("scheduler")

    def stop(self) -> None:
        """End all its processes, each by its id; tasks that still run are ended too."""
        if self._parents:
            end(self.processes(), grace=4)
            end(self.processes(), grace=2)
            for parent in self._parents:
                parent.wait(timeout=10)
            self._parents.clear()

    def processes(self) -> list[psutil.Process]:
        """Return its descendants, and the processes that lost their parent but work in its home."""
        found = {process.pid: process for parent in self._parents for process in family(parent.pid)}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.cwd() == str(self.home):
                    found[process.pid] = process
        return list(found.values())

    def _schedulers(self) -> list[psutil.Process]:
        return [process for process in self.processes() if "scheduler" in _command(process)]

    @property
    def _url_for_tasks(self) -> str:
        return f"http://127.0.0.1:{self._port_for_tasks}"

    @property
    def _log(self) -> Path:
        return self.home / "standalone.log"

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            parent = subprocess.Popen(
                [*ends_with_parent("INT"), sys.executable, "-m", "airflow", *command],
                cwd=self.home,
                env={**os.environ, **self._settings(), **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._parents.append(parent)
        return parent

    def _settings(self) -> dict[str, str]:
        return settings(self.home, self.dags) | {
            # It starts its parts by the bare name `airflow`.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "NO_COLOR": "1",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self._port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self._url_for_tasks}/execution/",
            # Shorter than by default, and longer than the scheduler takes to notice that a process has ended.
            "AIRFLOW__BATCHKIT__MIN_RESCHEDULE_SECONDS": "20",
            "AIRFLOW__BATCHKIT__MAX_WAIT_IN_SLOT_SECONDS": "25",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "25",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        }

    def _healthy(self) -> bool:
        health = self._answer()
        try:
            ping = f"{self._url_for_tasks}/execution/health/ping"
            urllib.request.urlopen(ping, timeout=5).close()  # noqa: S310 - ours
        except OSError:
            return False
        return all(health.get(part, {}).get("status") == "healthy" for part in _PARTS)

    def _answer(self) -> dict[str, Any]:
        """Return what its API server says of its parts, nothing while it does not answer."""
        if any(parent.poll() is not None for parent in self._parents):
            raise ServerError("airflow standalone, or the API server for its tasks, ended by itself")
        try:
            answer: dict[str, Any] = self.request("GET", "/monitor/health", timeout=5)
        except OSError:
            return {}
        return answer


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
