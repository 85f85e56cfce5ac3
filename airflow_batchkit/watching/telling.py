"""Who brings the news of a check to people."""

from __future__ import annotations

from typing_extensions import override

from airflow_batchkit.engine.exceptions import TransientError
from airflow_batchkit.notifications.destination import SlackDestination
from airflow_batchkit.notifications.incident import Incident
from airflow_batchkit.notifications.rendering import render
from airflow_batchkit.watching.check import Teller


class SlackTeller(Teller):
    """Sends each message to Slack, through Airflow's hooks and connections.

    :param destination: where to.
    """

    def __init__(self, destination: SlackDestination) -> None:
        self._destination = destination

    @override
    def tell(self, incident: Incident) -> None:
        from airflow_batchkit.notifications.delivery import send

        try:
            send(self._destination, render(incident))
        except Exception as error:
            raise TransientError(
                f"Slack did not take a message through connection {self._destination.conn_id!r}: "
                f"{type(error).__name__}: {' '.join(str(error).split())}"
            ) from error


class ByReport(Teller):
    """Sends nothing: whoever reads the report of the check is told by it."""

    @override
    def tell(self, incident: Incident) -> None:
        """Count it as told."""
