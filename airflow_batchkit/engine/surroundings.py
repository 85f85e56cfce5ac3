"""What every part of a leg needs: what is to be done, whom to ask, whom to tell, what time it is."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from airflow_batchkit.engine.clock import Clock
from airflow_batchkit.engine.job import Job
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.engine.telling import Teller
from airflow_batchkit.engine.writing import Notice, Retrying


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Handed through to the parts of a leg.

    :param job: what to do.
    :param stop: asked at boundaries.
    :param clock: where the time comes from.
    :param teller: tells the listeners; only the main thread may call it.
    :param log: where the engine says what it does.
    :param max_wait_in_slot: seconds; a longer wait ends the leg instead, to come back later.
    :param notices: retries that other threads made, until the main thread tells of them.
    """

    job: Job
    stop: Stop
    clock: Clock
    teller: Teller
    log: logging.Logger
    max_wait_in_slot: float
    notices: deque[Notice] = field(default_factory=deque)

    def retrying(self, total: timedelta) -> Retrying:
        """Return what makes calls again, in the main thread.

        :param total: give up after this long.
        """
        return self._retrying(total, self.tell_retry)

    def retrying_in_thread(self, total: timedelta) -> Retrying:
        """Return what makes calls again, in another thread.

        :param total: give up after this long.
        """
        return self._retrying(total, self.notices.append)

    def tell_retry(self, notice: Notice) -> None:
        """Tell the listeners of a call that is made again."""
        self.teller.tell(
            lambda listener: listener.on_retry(notice.what, notice.error, notice.tries, notice.wait)
        )

    def _retrying(self, total: timedelta, notify: Callable[[Notice], None]) -> Retrying:
        return Retrying(
            self.job.batch_retry,
            total_seconds=total.total_seconds(),
            stop=self.stop,
            max_wait_in_slot=self.max_wait_in_slot,
            notify=notify,
        )
