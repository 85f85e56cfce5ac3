"""Runs one contender in a process of its own and measures it from outside."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

LOOK_EVERY_SECONDS = 0.02
LONGEST_RUN_SECONDS = 600.0
_SHOWN = 2_000


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of one contender.

    :param seconds: from its start to its end, with its start-up.
    :param client_cpu: CPU seconds of its process.
    :param elasticsearch_cpu: CPU seconds that Elasticsearch used meanwhile.
    :param s3_cpu: CPU seconds that the S3 API used meanwhile.
    :param peak_bytes: the most memory (RSS) that it held, looked at fifty times a second.
    :param output: what it wrote to standard output.
    """

    seconds: float
    client_cpu: float
    elasticsearch_cpu: float
    s3_cpu: float
    peak_bytes: int
    output: str


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Return the CPU seconds, user and system, that processes have used so far, without their children's."""
    used = 0.0
    for process in processes:
        times = process.cpu_times()
        used += times.user + times.system
    return used


def measured(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    servers_cpu: Callable[[], tuple[float, float]],
) -> Run:
    """Run a command to its end.

    :param environment: all of its variables.
    :param log: gets its standard error.
    :param servers_cpu: CPU seconds of the two servers so far.
    :raises RuntimeError: it failed, or took longer than ten minutes; with the end of its log.
    """
    before = servers_cpu()
    output = log.with_suffix(".out")
    with output.open("wb") as standard_output, log.open("wb") as standard_error:
        began = time.monotonic()
        process = subprocess.Popen(  # noqa: S603  # the benchmark's own commands
            command, env=dict(environment), stdout=standard_output, stderr=standard_error
        )
        watch = MemoryWatch(process.pid)
        killer = threading.Timer(LONGEST_RUN_SECONDS, process.kill)
        killer.start()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        ends = "\n".join(file.read_text(errors="replace")[-_SHOWN:] for file in (output, log))
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}; it said last:\n{ends}")
    after = servers_cpu()
    return Run(
        seconds=seconds,
        client_cpu=used.ru_utime + used.ru_stime,
        elasticsearch_cpu=after[0] - before[0],
        s3_cpu=after[1] - before[1],
        peak_bytes=watch.peak_bytes(),
        output=output.read_text(),
    )


class MemoryWatch:
    """Looks at a process's memory until it is gone.

    The kernel's own high-water mark cannot be used: a child begins with its parent's.

    :param pid: of the process.
    """

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._peak = 0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def peak_bytes(self) -> int:
        """Wait until the process is gone, and return the most that it held."""
        self._thread.join(LOOK_EVERY_SECONDS * 50)
        return self._peak

    def _look(self) -> None:
        with suppress(psutil.Error):
            while self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE:
                self._peak = max(self._peak, self._process.memory_info().rss)
                time.sleep(LOOK_EVERY_SECONDS)
