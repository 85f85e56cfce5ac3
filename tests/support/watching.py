"""A watch of the tests: over an Airflow that answers as told, with a clock and a phone of its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.engine.exceptions import TransientError
from airflow_batchkit.notifications.rendering import headline
from airflow_batchkit.testing.doubles.store import MemoryStore
from airflow_batchkit.watching.api import AirflowApi, AirflowEndpoint
from airflow_batchkit.watching.check import Check, Expectations, Outcome, Teller
from airflow_batchkit.watching.rules import Place

if TYPE_CHECKING:
    from airflow_batchkit.notifications.incident import Incident
    from tests.support.airflow_answers import AirflowAnswers

MONDAY = datetime(2026, 11, 23, 0, 5, tzinfo=UTC)
MINUTES = timedelta(minutes=1)


class Phone(Teller):
    """Keeps what it is told, unless it is out of reach."""

    def __init__(self) -> None:
        self.in_reach = True
        self.heard: list[str] = []
        self.incidents: list[Incident] = []

    @override
    def tell(self, incident: Incident) -> None:
        if not self.in_reach:
            raise TransientError("out of reach")
        self.heard.append(headline(incident))
        self.incidents.append(incident)


class Watch:
    """One watch: its Airflow, its state, its phone, its clock."""

    def __init__(self, airflow: AirflowAnswers) -> None:
        self.airflow = airflow
        self.url = airflow.url
        self.store = MemoryStore()
        self.phone = Phone()
        self.now = MONDAY
        self.expectations: dict[str, Any] = {}

    def check(self, *, after: timedelta = 5 * MINUTES) -> Outcome:
        """Let some time pass and check."""
        self.now += after
        return Check(
            api=AirflowApi(AirflowEndpoint(url=self.url)),
            expectations=Expectations(**self.expectations),
            store=self.store,
            state_key="watch",
            teller=self.phone,
            place=Place(url="https://airflow.example"),
            clock=lambda: self.now,
        ).run()

    def news(self) -> list[str]:
        """Return what was heard since this was last asked."""
        heard, self.phone.heard = self.phone.heard, []
        return heard
