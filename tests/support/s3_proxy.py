"""A proxy in front of an S3 API that loses, refuses or delays answers as a test tells it to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from tests.support.http_faults import Asked, Breakage, Status, http_proxy

__all__ = ["Asked", "Fault", "Judge", "Plan", "Refusal", "s3_proxy"]


@dataclass(frozen=True)
class Refusal:
    """Answer with an error instead of asking the server.

    :param status: HTTP status.
    :param code: S3's error code.
    :param headers: more headers.
    :param message: S3's words.
    """

    status: int
    code: str
    headers: tuple[tuple[str, str], ...] = ()
    message: str = "made up by a test"

    @property
    def body(self) -> bytes:
        """The error as S3 writes it."""
        return f"<Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>".encode()

    @property
    def answer(self) -> Status:
        """The error as an answer."""
        return Status(self.status, self.body, (*self.headers, ("Content-Type", "application/xml")))


Fault: TypeAlias = Refusal | Breakage | None
Plan: TypeAlias = Callable[[str, str], Fault]
"""Called with method and path; None lets the request pass."""
Judge: TypeAlias = Callable[[Asked, int | None], Refusal | None]
"""Called before a request is passed on (None), and with the status of the answer; may refuse instead."""


@contextmanager
def s3_proxy(target: str, plan: Plan = lambda *_: None, judge: Judge = lambda *_: None) -> Iterator[str]:
    """Run a proxy for a ``with`` block; give its URL."""
    one_at_a_time = threading.Lock()

    def judged(asked: Asked, status: int | None) -> Refusal | None:
        with one_at_a_time:
            return judge(asked, status)

    def break_it(asked: Asked) -> Breakage | Status | None:
        fault = plan(asked.method, asked.path) or judged(asked, None)
        return fault.answer if isinstance(fault, Refusal) else fault

    def review(asked: Asked, answer: Status) -> Status:
        refusal = judged(asked, answer.code)
        return answer if refusal is None else refusal.answer

    with http_proxy(target, break_it, review=review) as proxy:
        yield proxy.url
