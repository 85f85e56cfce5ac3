"""What is expected of which DAGs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value
from airflow_batchkit.watching.maintenance import MaintenanceWindow, parse_window

_GLOB = frozenset("*?[")


@dataclass(frozen=True, kw_only=True, repr=False)
class Limits(Value):
    """How late, how old and how long is too much.

    :param grace: how long after its time a run may be missing. Default 15 minutes.
    :param max_queued: how long a run, or one of its tasks, may wait to be started. Default 30 minutes.
    :param max_age: how long ago the last success may be (the end of the run). Default: no limit.
    :param max_running: how long one run may take. Default: no limit.
    """

    grace: timedelta = timedelta(minutes=15)
    max_queued: timedelta = timedelta(minutes=30)
    max_age: timedelta | None = None
    max_running: timedelta | None = None

    @override
    def check(self) -> None:
        for setting in fields(self):
            limit = getattr(self, setting.name)
            if limit is not None and (not isinstance(limit, timedelta) or limit <= timedelta(0)):
                raise UsageError(f"Limits({setting.name}={limit!r}): must be a timedelta above zero")


@dataclass(frozen=True, kw_only=True, repr=False)
class Watched(Value):
    """Some DAGs and what is expected of them.

    A DAG is meant when it fits one of ``dags`` (or none is given), has one of ``tags`` (or none is given) and
    one of ``owners`` (or none is given); with nothing given every DAG is meant.

    :param dags: ids, or patterns with ``*``, ``?`` and ``[…]``. An id that Airflow does not know is told.
    :param tags: of the DAG.
    :param owners: of the DAG's tasks, as Airflow lists them.
    :param limits: how late, how old and how long is too much.
    :param allow_paused: whether being paused is in order; nothing is expected of a paused DAG then.
    :param maintenance: windows in which nothing new is told, and no run is expected
        (``Sun 02:00-04:00 Europe/Berlin``).
    :raises UsageError: a window cannot be read.
    """

    dags: Sequence[str] = ()
    tags: Sequence[str] = ()
    owners: Sequence[str] = ()
    limits: Limits = Limits()
    allow_paused: bool = False
    maintenance: Sequence[str] = ()
    _windows: tuple[MaintenanceWindow, ...] = field(default=(), init=False, repr=False, compare=False)

    @override
    def check(self) -> None:
        for name in ("dags", "tags", "owners", "maintenance"):
            given: Any = getattr(self, name)
            if isinstance(given, str):
                raise UsageError(f"Watched({name}={given!r}): must be a list, [{given!r}]")
        # The one way to keep something in a frozen value.
        object.__setattr__(self, "_windows", tuple(map(parse_window, self.maintenance)))

    @property
    def ids(self) -> list[str]:
        """The DAGs that are named without a pattern: these have to exist."""
        return [dag_id for dag_id in self.dags if not _GLOB & set(dag_id)]

    @property
    def everything(self) -> bool:
        """Whether every DAG is meant."""
        return not self.dags and not self.tags and not self.owners

    def means(self, dag_id: str, *, tags: Iterable[str], owners: Iterable[str]) -> bool:
        """Say whether a DAG is meant.

        :param dag_id: its id.
        :param tags: the names of its tags.
        :param owners: its owners.
        """
        return (
            (not self.dags or any(fnmatchcase(dag_id, pattern) for pattern in self.dags))
            and (not self.tags or not set(self.tags).isdisjoint(tags))
            and (not self.owners or not set(self.owners).isdisjoint(owners))
        )

    def in_maintenance(self, instant: datetime) -> bool:
        """Say whether an instant lies in one of the windows.

        :param instant: with a time zone.
        """
        return any(window.covers(instant) for window in self._windows)
