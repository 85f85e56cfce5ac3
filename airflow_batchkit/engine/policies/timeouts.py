"""Limits for everything that could wait for ever."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import timedelta

from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value

# Sockets and databases count in milliseconds, of which a C int holds less than 25 days.
_LONGEST_CALL = timedelta(days=24)
_LONGEST = timedelta(days=1000)
_CALLS = frozenset({"connect", "read", "request"})


@dataclass(frozen=True, kw_only=True, repr=False)
class Timeouts(Value):
    """Every limit has a value: leaving one out gives the default, and there is no way to say "for ever".

    ``docs/timeouts.md`` lists what waits, and which limit ends it.

    :param connect: to open a connection. Default 10 s.
    :param read: between two pieces of an answer. Default 60 s.
    :param request: one request to a server, from sending to the whole answer; ``batch`` holds for one that
        sends or copies an object. Default 2 min.
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

        :raises UsageError: a limit is not a duration above zero, or so long that it would never end anything.
        """
        for field in dataclasses.fields(self):
            limit = getattr(self, field.name)
            longest = _LONGEST_CALL if field.name in _CALLS else _LONGEST
            if not isinstance(limit, timedelta) or not timedelta(0) < limit <= longest:
                raise UsageError(
                    f"Timeouts({field.name}={limit!r}): must be a timedelta above zero, of at most "
                    f"{longest.days} days; leave it out for the default"
                )
