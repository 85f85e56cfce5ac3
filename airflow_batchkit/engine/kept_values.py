"""Small values beside a sink's output, for the sinks that can keep some: the ``target`` checkpoint store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from airflow_batchkit.engine.source import OpenContext


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptValue:
    """A value as it was read.

    :param content: its bytes.
    :param version: changes whenever the content does; opaque.
    """

    content: bytes
    version: str


class KeptValues(Protocol):
    """Values by name, changed by compare-and-set only. Every call may raise ``TransientError``."""

    @property
    def description(self) -> str:
        """Where they lie, as a URL without credentials."""
        ...

    def read(self, name: str) -> KeptValue | None:
        """Return a value, None when there is none."""
        ...

    def write(self, name: str, content: bytes, *, version: str | None) -> str | None:
        """Replace a value, whole or not at all, durable on return.

        :param version: what it must still be; None: there must be none yet.
        :returns: the new version; None: somebody else changed it, nothing was written.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove a value; nothing happens when there is none."""
        ...

    def names(self) -> list[str]:
        """Return the names of all values, sorted."""
        ...

    def close(self) -> None:
        """Close sockets. Never raises."""
        ...


@runtime_checkable
class KeepsValues(Protocol):
    """A sink that can keep values beside its output, besides being a sink."""

    def open_values(self, context: OpenContext) -> KeptValues:
        """Make the place for values; asks nothing of it yet."""
        ...
