"""The one seam through which every side effect goes, so that tests can end the process at each of them.

In production :func:`effect` does nothing but call through. The kill-anywhere tests install a probe that
counts the effects of a run and, at the k-th, kills the process before or after it, or raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

Probe: TypeAlias = Callable[[str, Literal["before", "after"]], None]

_probe: list[Probe] = []


@contextmanager
def effect(name: str) -> Iterator[None]:
    """Wrap one side effect, named ``component.verb`` (``sink.put``, ``checkpoint.save``)."""
    for probe in _probe:
        probe(name, "before")
    yield
    for probe in _probe:
        probe(name, "after")


@contextmanager
def probing(probe: Probe) -> Iterator[None]:
    """Install a probe for the time of a ``with`` block (tests only)."""
    _probe.append(probe)
    try:
        yield
    finally:
        _probe.remove(probe)
