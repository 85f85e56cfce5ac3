"""What a source is: a value with settings, and, once opened, something that reads partitions page by page."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from airflow_batchkit.engine.connections import Connections
    from airflow_batchkit.engine.policies import Timeouts
    from airflow_batchkit.engine.types import Cursor, Page, Sizing, Total


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenContext:
    """What a source, a sink or a dead-letter place is given when it is opened inside the task.

    :param connections: makes clients from connection names.
    :param timeouts: limits for every call.
    :param now: the run's one instant; date math in queries is resolved against it.
    :param state: what the same source or sink put into the checkpoint of the leg before; empty at the first.
    :param start_at: where a partial run begins, as the user wrote it; None for the beginning.
    :param job: the job's name, for servers that show their administrators who is there.
    :param log: where to say what is done, with a line *before* anything slow.
    """

    connections: Connections
    timeouts: Timeouts
    now: datetime
    state: Mapping[str, Any] = field(default_factory=dict)
    start_at: str | None = None
    job: str = ""
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("airflow_batchkit"))


class OpenSource(Protocol):
    """A source with its connections made. Everything but :meth:`read` is called from one thread."""

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Short hashes of what a cursor depends on: at least ``source`` and ``query``."""
        ...

    @property
    def partitions(self) -> Sequence[str]:
        """Names of the parts that are read independently, sorted, the same in every leg of a run.

        Names are safe in object keys: they match ``[A-Za-z0-9._-]+``.
        """
        ...

    @property
    def total(self) -> Total | None:
        """How many records there are to read, None when that is unknown."""
        ...

    @property
    def environment(self) -> Mapping[str, Any]:
        """Facts for the log's start block (server version, index, shards, documents); no secrets."""
        ...

    @property
    def state(self) -> Mapping[str, Any]:
        """Small JSON object for the checkpoint, given back to the next leg (under 500 bytes)."""
        ...

    def read(self, partition: int, after: Cursor | None, sizing: Sizing) -> Iterator[Page]:
        """Read one partition, strictly after a cursor, until its end.

        Called in a thread of its own, several partitions at a time. Raises ``TransientError`` where reading
        the same partition again from the last window's end may work: the engine calls again with that cursor.
        """
        ...

    def close(self) -> None:
        """Give back what the servers hold, and close sockets, also under a hanging reader. Never raises."""
        ...


@runtime_checkable
class Source(Protocol):
    """Settings of a source: a :class:`~airflow_batchkit.engine.values.Value` that opens nothing by itself."""

    def open(self, context: OpenContext) -> OpenSource:
        """Connect and look: resolve partitions, total and fingerprints.

        :raises UsageError: the settings do not fit what is there (unknown index, malformed query).
        :raises TransientError: the server does not answer.
        """
        ...

    def serialize(self) -> dict[str, Any]:
        """Return the settings as JSON types, without secrets."""
        ...
