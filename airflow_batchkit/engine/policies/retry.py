"""How often, and how patiently, one batch is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value


@dataclass(frozen=True, kw_only=True, repr=False)
class BatchRetry(Value):
    """Exponential backoff with jitter, inside the leg; the client libraries' own retries are switched off.

    The n-th wait is drawn from between half of and the whole of ``min(first_wait * 2**(n-1), max_wait)``
    ("equal jitter": never the near-zero waits of full jitter, see the AWS Architecture Blog, "Exponential
    Backoff And Jitter"). A server's ``Retry-After`` is a lower bound for it.

    :param max_tries: tries at one cursor, the first included. Default 6. They begin anew whenever a part of
        the batch is done.
    :param first_wait: longest wait before the second try. Default 0.5 s.
    :param max_wait: longest wait of all. Default 60 s.
    """

    max_tries: int = 6
    first_wait: timedelta = timedelta(seconds=0.5)
    max_wait: timedelta = timedelta(seconds=60)

    @override
    def check(self) -> None:
        """Refuse numbers outside their range.

        :raises UsageError: which number, and its range.
        """
        if type(self.max_tries) is not int or self.max_tries < 1:
            message = f"BatchRetry(max_tries={self.max_tries!r}): must be 1 or more"
            raise UsageError(message)
        waits = (self.first_wait, self.max_wait)
        if not all(isinstance(wait, timedelta) for wait in waits):
            message = (
                f"BatchRetry(first_wait={self.first_wait!r}, max_wait={self.max_wait!r}): must be timedeltas"
            )
            raise UsageError(message)
        if not timedelta(0) < self.first_wait <= self.max_wait:
            message = (
                f"BatchRetry(first_wait={self.first_wait}, max_wait={self.max_wait}): "
                "first_wait must be above zero and not longer than max_wait"
            )
            raise UsageError(message)

    def pause(self, tries: int, *, asked: float | None = None) -> float:
        """Draw the seconds to wait before the next try.

        :param tries: made so far, from 1.
        :param asked: seconds that the other side asked for.
        """
        first, most = self.first_wait.total_seconds(), self.max_wait.total_seconds()
        step = min(first * 2.0 ** min(tries - 1, 30), most)
        return max(random.uniform(step / 2, step), asked or 0.0)
