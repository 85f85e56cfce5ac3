"""``batchkit demo``, from the command to the verdict: a real Airflow, a real SIGKILL."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from pathlib import Path

BATCHKIT = (sys.executable, "-c", "from airflow_batchkit.cli import main; main()")


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return the processes that work below a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd().startswith(str(folder)):
                found.append(process)
    return found


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Give the variables of a person who has an Airflow of their own, which must not be touched."""
    return {
        **os.environ,
        "TMPDIR": str(tmp_path),
        "AIRFLOW_HOME": "/nonexistent",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://nowhere/airflow",
    }


@pytest.mark.standalone
def test_demo_survives_its_kill(tmp_path: Path, environment: dict[str, str]) -> None:
    """The worker is killed, the retry resumes, everything adds up, and neither process nor file is left."""
    done = subprocess.run(
        [*BATCHKIT, "demo", "--orders", "100000"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("SIGKILL to process", "try 2 goes on after record", "the amount is no number"):
        assert word in done.stdout
    assert "100,000 made = 99,977 exported + 23 dead-lettered" in done.stdout
    assert "nothing lost, nothing doubled" in done.stdout
    assert processes_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.standalone
def test_ended_demo_leaves_no_process(tmp_path: Path, environment: dict[str, str]) -> None:
    """SIGTERM, which is handled as Ctrl-C, ends every process of the demo's Airflow; its logs are kept."""
    with subprocess.Popen(
        [*BATCHKIT, "demo"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Airflow runs" in line:
                break
        assert processes_in(tmp_path)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Airflow's logs" in said
    assert "Traceback" not in said
    assert processes_in(tmp_path) == []
