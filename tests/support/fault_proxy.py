"""An HTTP proxy in front of a real server that breaks the answers that a test tells it to, by their paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from tests.support.http_faults import Fault, HttpProxy, Status, http_proxy

__all__ = ["Fault", "Plan", "Status", "fault_proxy"]

Plan: TypeAlias = Callable[[str, int], Fault]
"""Called with the path, and the number of the request of this method on it; None lets it pass."""


@contextmanager
def fault_proxy(target: str, plan: Plan) -> Iterator[tuple[str, HttpProxy]]:
    """Run a proxy for a ``with`` block; give its URL and itself."""
    with http_proxy(target, lambda asked: plan(asked.resource, asked.number)) as proxy:
        yield proxy.url, proxy
