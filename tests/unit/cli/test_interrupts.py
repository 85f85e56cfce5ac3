"""Signals: once is a request, twice is the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from airflow_batchkit.cli.interrupts import Interrupts
from airflow_batchkit.engine.stop import Stop

HANGS = """
import time
from airflow_batchkit.cli.interrupts import Interrupts
from airflow_batchkit.engine.stop import Stop
with Interrupts(Stop()):
    print("ready", flush=True)
    while True:
        time.sleep(0.05)
"""


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGINT, "stopped by Ctrl-C"), (signal.SIGTERM, "stopped by SIGTERM")]
)
def test_first_signal_asks_to_stop(
    capfd: pytest.CaptureFixture[str], number: signal.Signals, reason: str
) -> None:
    """The first signal asks the run to stop, says so, and raises nothing; the handlers are put back."""
    before = signal.getsignal(number)
    stop = Stop()
    with Interrupts(stop):
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 5
        while not stop.asked and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stop.asked == reason
    assert signal.getsignal(number) is before
    assert "stopping at the next batch boundary" in capfd.readouterr().err


def test_second_ctrl_c_ends_a_process_that_hangs() -> None:
    """A run that does not come to its next boundary is ended by the second Ctrl-C, with exit code 4."""
    with subprocess.Popen(
        [sys.executable, "-c", HANGS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert "Ctrl-C again ends at once" in process.stderr.readline()
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 4
    assert "the same command goes on from the last checkpoint" in said


def test_sigterm_never_ends_at_once() -> None:
    """SIGTERM is like the first Ctrl-C, however often it comes: it asks for a stop at the boundary."""
    with subprocess.Popen(
        [sys.executable, "-c", HANGS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert "SIGTERM" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.kill()
