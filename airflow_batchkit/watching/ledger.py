"""From what is wrong now to what has to be told: each incident once, its end once, whatever flaps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_batchkit.notifications.incident import Incident
from airflow_batchkit.watching.rules import all_clear
from airflow_batchkit.watching.sights import Sight
from airflow_batchkit.watching.state import OpenIncident, WatchState

FORGOTTEN_AFTER = timedelta(days=7)
# From here on, what happened to many DAGs at once is one message.
MANY = 5
# An Airflow that is being deployed is away for a moment: these have to last before they are told.
_HAVE_TO_LAST = {"airflow_unreachable", "airflow_refuses", "part_down"}


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """One message.

    :param incident: what it says.
    :param keys: the incidents that are told by it.
    """

    incident: Incident
    keys: tuple[str, ...]


def key_of(incident: Incident) -> str:
    """Return what an incident is recognised by: kind, DAG or part, and which of them."""
    return " ".join((incident.kind, incident.subject or incident.dag_id, incident.instance)).strip()


def enter(
    state: WatchState,
    found: Iterable[Incident],
    *,
    sight: Sight | None,
    muted: Callable[[Incident], bool],
    now: datetime,
) -> None:
    """Write down what a check found.

    :param state: changed in place.
    :param found: everything that is wrong now.
    :param sight: what was seen; None where Airflow could not be asked: then nothing else is known to be over.
    :param muted: whether an incident lies in a maintenance window; one that is open already goes on.
    :param now: the time.
    """
    wrong = {key_of(incident): incident for incident in found}
    for key, incident in wrong.items():
        entry = state.incidents.get(key)
        if entry is not None:
            entry.over_since = None
        elif not muted(incident):
            state.incidents[key] = OpenIncident(incident=incident, since=now)
    for key, entry in list(state.incidents.items()):
        if key in wrong:
            continue
        if sight is not None and _is_void(entry.incident, sight):
            del state.incidents[key]
        elif not _is_undecided(entry.incident, sight):
            entry.over_since = entry.over_since or now


def forget(state: WatchState, sight: Sight, *, named: Collection[str], now: datetime) -> None:
    """Drop the DAGs that nobody watches any more, and those that have been gone for a week.

    :param state: changed in place.
    :param sight: what was seen.
    :param named: the ids that have to exist; these stay gone for as long as they are.
    :param now: the time.
    """
    for dag_id, known in list(state.known.items()):
        gone = dag_id in sight.gone
        if (not gone and dag_id not in sight.dags) or (gone and now - known.seen > FORGOTTEN_AFTER):
            del state.known[dag_id]
    for key, entry in list(state.incidents.items()):
        dag_id = entry.incident.dag_id
        if dag_id and dag_id not in state.known and dag_id not in named:
            del state.incidents[key]


def news(state: WatchState, *, settle: timedelta, now: datetime) -> Iterator[News]:
    """Return what has to be told, the beginnings first.

    :param state: not changed; :func:`told` does that.
    :param settle: how long what is over has to stay over, and how long Airflow itself has to be away.
    :param now: the time.
    """
    begun = {
        key: entry.incident
        for key, entry in state.incidents.items()
        if _is_due(entry, settle=settle, now=now)
    }
    over = {
        key: all_clear(entry.incident, lasted=entry.over_since - entry.since)
        for key, entry in state.incidents.items()
        if entry.over_since is not None and now - entry.over_since >= settle and (entry.told or key in begun)
    }
    yield from _bundled(begun)
    yield from _bundled(over)


def told(state: WatchState, message: News) -> None:
    """Write down that a message is out."""
    for key in message.keys:
        if message.incident.over:
            del state.incidents[key]
        else:
            state.incidents[key].told = True


def not_told(state: WatchState, message: News) -> None:
    """Write down that a message could not be sent: the next check sends it, also when all is over by then."""
    for key in message.keys:
        state.incidents[key].owed = True


def sweep(state: WatchState) -> None:
    """Drop what was over before it had to be told."""
    for key, entry in list(state.incidents.items()):
        if entry.over_since is not None and not entry.told and not entry.owed:
            del state.incidents[key]


def _is_due(entry: OpenIncident, *, settle: timedelta, now: datetime) -> bool:
    if entry.told or (entry.over_since is not None and not entry.owed):
        return False
    return entry.owed or entry.incident.kind not in _HAVE_TO_LAST or now - entry.since >= settle


def _is_void(incident: Incident, sight: Sight) -> bool:
    """Say whether an incident has lost its meaning: a run that a paused DAG does not make is not missing."""
    dag = sight.dags.get(incident.dag_id)
    return incident.kind == "run_missing" and dag is not None and dag.is_paused


def _is_undecided(incident: Incident, sight: Sight | None) -> bool:
    """Say whether the check cannot tell that an incident is over, although it was not seen."""
    if sight is None:
        return incident.kind not in {"airflow_unreachable", "airflow_refuses"}
    if not incident.dag_id:
        return False
    dag = sight.dags.get(incident.dag_id)
    if dag is None or (dag.is_paused and incident.kind not in {"dag_paused", "dag_gone"}):
        return True
    # A failed run that was cleared runs again: its end decides.
    return incident.kind == "still_failed" and any(run.run_id == incident.run_id for run in dag.active)


def _bundled(incidents: dict[str, Incident]) -> Iterator[News]:
    by_kind: dict[str, list[str]] = {}
    for key, incident in incidents.items():
        by_kind.setdefault(incident.kind, []).append(key)
    for keys in by_kind.values():
        if len(keys) <= MANY:
            yield from (News(incident=incidents[key], keys=(key,)) for key in keys)
            continue
        first = incidents[keys[0]]
        names = sorted({incidents[key].subject or incidents[key].dag_id for key in keys})
        what = "DAGs" if first.dag_id else "files"
        yield News(
            incident=Incident(
                kind=first.kind,
                dag_id="",
                run_id="",
                subject=f"each of {len(names)} {what}",
                environment=first.environment,
                over=first.over,
                facts=(("Which", ", ".join(names)),),
            ),
            keys=tuple(keys),
        )
