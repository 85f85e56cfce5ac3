"""Starting, waiting for and ending the real servers of the tests, each by its own process id."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


class ServerError(RuntimeError):
    """A server of the tests did not start, or did not do what it was asked in time."""


def unavailable(reason: str) -> None:
    """Skip the test, or fail it where ``CI=true``: there, nothing that is needed may be missing."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"CI=true and {reason}", pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str, every: float = 0.1) -> None:
    """
    Return as soon as a condition holds.

    :param condition: asked again and again; what it raises is raised here
    :param seconds: how long to wait at most
    :param what: what is waited for, for the message of the :class:`ServerError` raised when time is up
    :param every: pause between two questions, in seconds
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ServerError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(every)


def ends_with_parent(signal_name: str) -> list[str]:
    """Return the start of a command line that has the kernel signal the process when the test run dies."""
    if shutil.which("setpriv") is None:
        return []
    # A test run that a shell started in the background ignores SIGINT, and what it starts would do so too.
    return ["setpriv", "--pdeathsig", signal_name, "--", "env", "--default-signal=INT"]


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants as they are now; nothing if it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def end(processes: Iterable[psutil.Process], *, grace: float) -> None:
    """Ask each process to end (SIGTERM), then kill what still runs after ``grace`` seconds."""
    processes = list(processes)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=grace)
    kill(alive)


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill each process at once (SIGKILL) and wait until it is gone."""
    processes = list(processes)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(processes, timeout=10)
    if alive:
        raise ServerError(f"could not kill the processes {[process.pid for process in alive]}")


def last_lines(log: Path, count: int = 40) -> str:
    """Return the end of a log file, for the message that says why a server did not start."""
    if not log.exists():
        return f"({log.name} was never written)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
