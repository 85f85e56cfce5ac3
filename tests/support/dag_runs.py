"""Runs of a DAG file in processes of their own, forked from one that has imported Airflow already."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.support.processes import ends_with_parent, wait_until


class DagRun:
    """One run of a DAG's one task.

    :param pid: of its process.
    :param output: file with what it printed.
    :param result: file that it writes in the end.
    """

    def __init__(self, pid: int, output: Path, result: Path) -> None:
        self._pid = pid
        self._output = output
        self._result = result

    @property
    def printed(self) -> str:
        """What it printed so far."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def wait_for(self, word: str) -> None:
        """Wait until it says something."""
        wait_until(
            lambda: word in self.printed or not psutil.pid_exists(self._pid),
            seconds=120,
            what=repr(word),
            every=0.05,
        )
        assert word in self.printed, self.printed[-4000:]

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        psutil.Process(self._pid).kill()
        self._wait_until_gone()

    def ended(self) -> dict[str, Any]:
        """Wait for its end; return how the task ended and what it returned."""
        self._wait_until_gone()
        assert self._result.exists(), self.printed[-4000:]
        result: dict[str, Any] = json.loads(self._result.read_text())
        return result

    def _wait_until_gone(self) -> None:
        wait_until(lambda: not psutil.pid_exists(self._pid), seconds=120, what="the end of a run", every=0.05)


class DagRuns:
    """Starts runs.

    :param process: has imported Airflow.
    :param folder: for what the runs print.
    """

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._number = itertools.count(1)

    def start(self, file: str, date: str, environment: Mapping[str, str]) -> DagRun:
        """Start the run of a date."""
        number = next(self._number)
        output, result = (self._folder / f"{number}.{name}" for name in ("log", "json"))
        asked = {"file": file, "date": date, "environment": dict(environment)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({**asked, "output": str(output), "result": str(result)}) + "\n")
        self._process.stdin.flush()
        return DagRun(int(self._process.stdout.readline()), output, result)


@contextmanager
def dag_runs(folder: Path) -> Iterator[DagRuns]:
    """Import Airflow in a process of its own; it ends with the ``with`` block."""
    with (
        (folder / "starter.log").open("wb") as log,
        subprocess.Popen(
            [*ends_with_parent("TERM"), sys.executable, "-m", "tests.support.run_dag_file"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        yield DagRuns(process, folder)
