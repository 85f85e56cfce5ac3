"""Connections for tests: none at all, or those that the test makes itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_batchkit.engine.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_batchkit.engine.policies import Timeouts


class NoConnections:
    """Knows no connection: for jobs whose source and sink need none."""

    def client(self, kind: str, conn_id: str, *, timeouts: Timeouts) -> Any:
        """Refuse.

        :raises UsageError: always.
        """
        del timeouts
        message = f"connection {conn_id!r} ({kind}) is not known; this job was given no connections"
        raise UsageError(message)


class FakeConnections:
    """Makes clients with functions of the test.

    :param factories: by connection id, a function that makes a new client each time it is called.
    """

    def __init__(self, factories: Mapping[str, Callable[[], Any]]) -> None:
        self._factories = dict(factories)
        self.made: list[tuple[str, str]] = []

    def client(self, kind: str, conn_id: str, *, timeouts: Timeouts) -> Any:
        """Make a new client and note (kind, conn_id) in ``made``.

        :raises UsageError: there is no function for this connection id.
        """
        del timeouts
        if conn_id not in self._factories:
            message = f"connection {conn_id!r} ({kind}) is not known; the test gave {sorted(self._factories)}"
            raise UsageError(message)
        self.made.append((kind, conn_id))
        return self._factories[conn_id]()
