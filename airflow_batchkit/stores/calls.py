"""How the stores reach Airflow: through whoever makes the calls of a running task."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class AirflowCalls(Protocol):
    """What the stores need of :class:`~airflow_batchkit.hooks.airflow_thread.AirflowThread`."""

    def call(self, what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call and wait for its answer.

        :param what: what the call is for, as a message can name it.
        :raises TransientError: no answer in time, or an error of Airflow's API.
        :raises SupersededError: Airflow does not know this task instance any more.
        """
        ...
