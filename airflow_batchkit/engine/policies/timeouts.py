"""Limits for everything that could wait for ever."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import timedelta

from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value


@dataclass(frozen=True, kw_only=True, repr=False)
class Timeouts(Value):
    """Every limit has a value: leaving one out gives the default, and there is no way to say "for ever".

    :param connect: to open a connection. Default 10 s.
    :param read: between two pieces of an answer. Default 60 s.
    :param request: one request to a server, from sending to the whole answer. Default 2 min.
    :param batch: one batch in the sink, with its retries. Default 10 min.
    :param no_progress: without any cursor moving, not counting time in a throttle. Default 10 min.
    :param run: the whole run over all its tries and legs. Default 24 h.
    """

    connect: timedelta = timedelta(seconds=10)
    read: timedelta = timedelta(seconds=60)
    request: timedelta = timedelta(minutes=2)
    batch: timedelta = timedelta(minutes=10)
    no_progress: timedelta = timedelta(minutes=10)
    run: timedelta = timedelta(hours=24)

    @override
    def check(self) -> None:
        """Refuse what would mean "for ever" or "never".

        :raises UsageError: a limit is not a duration above zero.
        """
        for field in dataclasses.fields(self):
            limit = getattr(self, field.name)
            if not isinstance(limit, timedelta) or limit <= timedelta(0):
                message = f"Timeouts({field.name}={limit!r}): must be a timedelta above zero"
                raise UsageError(message)
