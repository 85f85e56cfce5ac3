"""An Airflow that lives for one demo: its home, database, ports and processes are its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from airflow_batchkit.cli.demo.api import AirflowApi
from airflow_batchkit.engine.exceptions import PermanentError, TransientError

_LAST_LINES = 15


class DemoAirflow:
    """Scheduler, API server and DAG processor as processes of their own, ended when the ``with`` block ends.

    :param home: an empty folder for the database, logs and DAGs.
    :param environment: more variables for all of them (connections, what the DAG reads).
    """

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.home = home
        self.dags = home / "dags"
        self._port = _free_port()
        self.api = AirflowApi(f"http://127.0.0.1:{self._port}")
        self._environment = {**_without_airflow(os.environ), **self._settings(), **environment}
        self._parts: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.dags.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_all()

    def start(self) -> None:
        """Make the metadata database and start the three parts; :meth:`wait_until_ready` waits for them.

        :raises PermanentError: the database cannot be made; the message ends with what Airflow printed.
        """
        # The API server needs as long to start as the migration takes; its check for one is switched off.
        self._start("API server", ("api-server",))
        migration = self._start("migration", ("db", "migrate"))
        if migration.wait(timeout=180) != 0:
            raise PermanentError(f"airflow db migrate failed: {self._last_lines('migration')}")
        del self._parts["migration"]
        # The demo reads no logs through the scheduler's server for them, which would only take another port.
        self._start("scheduler", ("scheduler", "--skip-serve-logs"))
        self._start("DAG processor", ("dag-processor",))

    def wait_until_ready(self, dag_id: str, *, seconds: float = 120) -> None:
        """Wait until the API answers and the DAG has been parsed.

        :raises TransientError: not within ``seconds``.
        :raises PermanentError: one of the processes ended, or the DAG file cannot be imported.
        """
        deadline = time.monotonic() + seconds
        while not self.api.knows(dag_id):
            for name, process in self._parts.items():
                if process.poll() is not None:
                    raise PermanentError(f"Airflow's {name} ended by itself: {self._last_lines(name)}")
            if time.monotonic() > deadline:
                raise TransientError(f"Airflow was not ready within {seconds:.0f} s (logs: {self.home})")
            time.sleep(0.25)

    def task_process(self, task_instance_id: str) -> psutil.Process | None:
        """Return the process in which a task's code runs, None when it does not run."""
        # The task's process names itself so; its supervisor and idle workers bear longer titles.
        title = f"airflow worker -- {task_instance_id}"
        for process in _family(self._parts["scheduler"].pid):
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[:1] == [title]:
                    return process
        return None

    def _start(self, name: str, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
        with self._log(name).open("wb") as log:
            # A session of their own keeps Ctrl-C from them: they are ended in order, below.
            self._parts[name] = subprocess.Popen(  # noqa: S603  # our own interpreter and fixed arguments
                [sys.executable, "-m", "airflow", *arguments],
                cwd=self.home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self._parts[name]

    def _end_all(self) -> None:
        processes = {process.pid: process for part in self._parts.values() for process in _family(part.pid)}
        # Its database goes with it: there is no need to wait long for a tidy end.
        for signal_name, seconds in (("terminate", 2), ("kill", 10)):
            for process in processes.values():
                with contextlib.suppress(psutil.NoSuchProcess):
                    getattr(process, signal_name)()
            _, alive = psutil.wait_procs(list(processes.values()), timeout=seconds)
            processes = {process.pid: process for process in alive}
        for part in self._parts.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                part.wait(timeout=1)
        self._parts.clear()

    def _log(self, name: str) -> Path:
        return self.home / f"{name.lower().replace(' ', '-')}.log"

    def _last_lines(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").splitlines()
        return "\n".join(["", *lines[-_LAST_LINES:]])

    def _settings(self) -> dict[str, str]:
        url = self.api.url
        return {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__DATABASE__CHECK_MIGRATIONS": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self._port),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }


def _without_airflow(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith("AIRFLOW")}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _family(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [*parent.children(recursive=True), parent]
    return []
