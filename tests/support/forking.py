"""Legs in forked children, and a probe that signals its own process at one moment of its leg.

Only a process can be killed for real, and only one without threads can be forked safely: the sweeps that use
this are programs of their own.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Literal


class At:
    """A probe that sends its own process a signal at one moment; an effect has two (before, after).

    :param moment: which, from 1; 0: none, only note them.
    :param sent: the signal.
    """

    def __init__(self, moment: int, sent: signal.Signals) -> None:
        self.moments: list[str] = []
        self._moment = moment
        self._sent = sent
        self._lock = threading.Lock()

    def __call__(self, name: str, when: Literal["before", "after"]) -> None:
        """Be asked."""
        with self._lock:
            self.moments.append(f"{when} {name}")
            if len(self.moments) == self._moment:
                os.kill(os.getpid(), self._sent)


def fork(work: Callable[[], Any]) -> tuple[int, Any]:
    """Start work in a child; return its process id and the pipe on which its JSON result comes."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, os.fdopen(reading)
    status = 1
    try:
        os.close(reading)
        result = json.dumps(work())
        with os.fdopen(writing, "w") as pipe:
            pipe.write(result)
        status = 0
    finally:
        os._exit(status)


def in_child(work: Callable[[], Any]) -> Any:
    """Do work in a child; return its result, or the signal that killed it."""
    child, pipe = fork(work)
    with pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status))
    if status != 0:
        raise RuntimeError("a leg failed; its stack trace is above")
    return json.loads(text)
