"""One check: look, judge, write down, tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from airflow_batchkit.engine.checkpoint import CheckpointStore
from airflow_batchkit.engine.exceptions import CannotResumeError, TransientError
from airflow_batchkit.notifications.incident import Incident
from airflow_batchkit.watching import ledger
from airflow_batchkit.watching.api import AirflowApi, RefusedError, UnreachableError
from airflow_batchkit.watching.expectations import Watched
from airflow_batchkit.watching.rules import Place, known_now, wrong_with_airflow, wrong_with_dag
from airflow_batchkit.watching.sights import Sight, look
from airflow_batchkit.watching.state import OpenIncident, WatchState, decode_state, encode_state

SETTLE = timedelta(minutes=3)


class Teller(Protocol):
    """Brings an incident, or the news that it is over, to people."""

    def tell(self, incident: Incident) -> None:
        """Tell it.

        :raises TransientError: it did not get through; it is tried again by the next check.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Expectations:
    """All that a check is asked to look after.

    :param watched: which DAGs; one that several mean belongs to the first. Default: every DAG.
    :param airflow: whose ``maintenance`` holds for Airflow's own parts and for files. Default: none.
    :param settle: how long what is over has to stay over before that is told, and how long Airflow or one of
        its parts has to be away. Default 3 minutes.
    :param every_import_error: tell of files without a watched DAG too.
    """

    watched: Sequence[Watched] = field(default_factory=lambda: (Watched(),))
    airflow: Watched = field(default_factory=Watched)
    settle: timedelta = SETTLE
    every_import_error: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a check found.

    :param dags: how many DAGs are watched; None where Airflow could not be asked.
    :param going_on: the incidents that are not over, new ones too.
    :param begun: the messages about new ones that went out now.
    :param over: the messages about the end of others.
    :param not_sent: why the first message that did not get through did not; None where all did.
    :param notes: what else people should know, a line each.
    """

    dags: int | None
    going_on: Sequence[OpenIncident]
    begun: Sequence[Incident]
    over: Sequence[Incident]
    not_sent: str | None = None
    notes: Sequence[str] = field(default=())

    @property
    def all_is_well(self) -> bool:
        """Whether nothing is wrong and nothing is left to be told."""
        return not self.going_on and self.not_sent is None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "dags": self.dags,
            "going_on": [
                {"since": entry.since.isoformat(), "told": entry.told, **_plain(entry.incident)}
                for entry in self.going_on
            ],
            "begun": [_plain(incident) for incident in self.begun],
            "over": [_plain(incident) for incident in self.over],
            "not_sent": self.not_sent,
            "notes": list(self.notes),
        }


class Check:
    """Looks once; make a new one for each check.

    :param api: of the Airflow.
    :param expectations: what to look after.
    :param store: keeps the state between checks.
    :param state_key: its key in there.
    :param teller: brings the news to people.
    :param place: how messages call this Airflow, and where their links lead.
    :param clock: the time. Default: now, UTC.
    """

    def __init__(
        self,
        *,
        api: AirflowApi,
        expectations: Expectations,
        store: CheckpointStore,
        state_key: str,
        teller: Teller,
        place: Place,
        clock: Callable[[], datetime] = lambda: datetime.now(tz=UTC),
    ) -> None:
        self._api = api
        self._expectations = expectations
        self._store = store
        self._state_key = state_key
        self._teller = teller
        self._place = place
        self._clock = clock

    def run(self) -> Outcome:
        """Do it.

        :raises TransientError: the state cannot be read or kept just now.
        :raises PermanentError: the state cannot be kept there.
        """
        now = self._clock()
        state, notes = self._load()
        sight, found = self._look(state, now)
        ledger.enter(state, found, sight=sight, muted=self._muting(sight, now), now=now)
        if sight is not None:
            named = {dag_id for watched in self._expectations.watched for dag_id in watched.ids}
            ledger.forget(state, sight, named=named, now=now)
        ledger.sweep(state)
        # Before anything is told: where the state cannot be kept, every check would tell it again.
        self._save(state)
        begun, over, not_sent = self._tell(state, now)
        return Outcome(
            dags=None if sight is None else len(sight.dags),
            going_on=[entry for entry in state.incidents.values() if entry.over_since is None],
            begun=begun,
            over=over,
            not_sent=not_sent,
            notes=notes,
        )

    def _look(self, state: WatchState, now: datetime) -> tuple[Sight | None, list[Incident]]:
        try:
            sight = look(self._api, self._expectations.watched, known=state.known)
        except UnreachableError as error:
            return None, [self._airflow("airflow_unreachable", error)]
        except RefusedError as error:
            return None, [self._airflow("airflow_refuses", error)]
        found = list(
            wrong_with_airflow(self._place, sight, every_import_error=self._expectations.every_import_error)
        )
        for dag_id, dag in sight.dags.items():
            known = state.known[dag_id] = known_now(state.known.get(dag_id), dag, now)
            found += wrong_with_dag(self._place, dag, known, now)
        return sight, found

    def _airflow(self, kind: Any, error: Exception) -> Incident:
        return self._place.incident(kind, subject="Airflow", error_message=str(error))

    def _muting(self, sight: Sight | None, now: datetime) -> Callable[[Incident], bool]:
        def muted(incident: Incident) -> bool:
            dag = None if sight is None else sight.dags.get(incident.dag_id)
            watched = self._expectations.airflow if dag is None else dag.watched
            # What was held up by the maintenance has its grace after it, too.
            return watched.in_maintenance(now) or watched.in_maintenance(now - watched.limits.grace)

        return muted

    def _tell(self, state: WatchState, now: datetime) -> tuple[list[Incident], list[Incident], str | None]:
        begun: list[Incident] = []
        over: list[Incident] = []
        not_sent: str | None = None
        for message in list(ledger.news(state, settle=self._expectations.settle, now=now)):
            if not_sent is None:
                try:
                    self._teller.tell(message.incident)
                except TransientError as error:
                    not_sent = str(error)
            if not_sent is not None:
                ledger.not_told(state, message)
                continue
            ledger.told(state, message)
            (over if message.incident.over else begun).append(message.incident)
            # At once: a message that is out must not go out again, whatever happens to this process.
            self._save(state)
        if not_sent is not None:
            self._save(state)
        return begun, over, not_sent

    def _load(self) -> tuple[WatchState, list[str]]:
        try:
            stored = self._store.load(self._state_key)
            return (WatchState() if stored is None else decode_state(stored)), []
        except CannotResumeError as error:
            where = self._store.description
            return WatchState(), [f"{error} ({where}): begun anew; what is wrong now is told again"]

    def _save(self, state: WatchState) -> None:
        self._store.save(self._state_key, encode_state(state))


def _plain(incident: Incident) -> dict[str, Any]:
    about = {
        "kind": incident.kind,
        "dag_id": incident.dag_id or None,
        "subject": incident.subject,
        "run_id": incident.run_id or None,
        "url": incident.run_url,
        "error": incident.error_message,
    }
    return {**{name: fact for name, fact in about.items() if fact}, **dict(incident.facts)}
