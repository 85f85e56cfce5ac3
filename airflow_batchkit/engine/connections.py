"""How a source or sink reaches its server: by a connection's name, resolved by whoever runs the job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from airflow_batchkit.engine.policies import Timeouts


class Connections(Protocol):
    """Makes clients out of connection names: through Airflow's hooks, or from the environment."""

    def client(self, kind: str, conn_id: str, *, timeouts: Timeouts) -> Any:
        """Make a new, connected-on-first-use client that the caller closes.

        :param kind: ``"elasticsearch"``, ``"s3"`` or ``"sql"``; the connector says what type it expects.
        :param conn_id: name of the connection.
        :param timeouts: the client's connect, read and request limits; its own retries are switched off.
        :raises UsageError: no such connection, or one that lacks what the kind needs.
        """
        ...
