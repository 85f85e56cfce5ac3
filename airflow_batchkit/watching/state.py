"""What one check leaves for the next: the runs that Airflow announced, and the incidents that are open."""

from __future__ import annotations

from datetime import datetime

import msgspec

from airflow_batchkit.engine.exceptions import CannotResumeError
from airflow_batchkit.notifications.incident import Incident

VERSION = 1


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A DAG that was seen.

    :param since: when first.
    :param seen: when last.
    :param expected: when Airflow said that it would create the next run, until one of then or later exists.
    :param noted: when it said so.
    :param timetable: its timetable then: with another one the announcement is void.
    """

    since: datetime
    seen: datetime
    expected: datetime | None = None
    noted: datetime | None = None
    timetable: str | None = None


class OpenIncident(msgspec.Struct, kw_only=True):
    """An incident that is not over, or whose end is not told yet.

    :param incident: as it was when it began.
    :param since: when a check saw it first.
    :param told: whether people were told.
    :param owed: whether telling failed once: then it is told even when it is over by then.
    :param over_since: since when no check saw it; None while it goes on.
    """

    incident: Incident
    since: datetime
    told: bool = False
    owed: bool = False
    over_since: datetime | None = None


class WatchState(msgspec.Struct, kw_only=True):
    """Everything that a check remembers.

    :param version: of this format.
    :param known: the watched DAGs that were seen, by id.
    :param incidents: by key.
    """

    version: int = VERSION
    known: dict[str, Known] = {}  # msgspec makes a new one for each state
    incidents: dict[str, OpenIncident] = {}


def encode_state(state: WatchState) -> str:
    """Write a state as JSON."""
    return msgspec.json.encode(state).decode()


def decode_state(stored: str) -> WatchState:
    """Read a state.

    :raises CannotResumeError: it is damaged, or another version of this package wrote it.
    """
    try:
        state = msgspec.json.decode(stored, type=WatchState)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeError) as error:
        raise CannotResumeError("the watch's state is damaged") from error
    if state.version != VERSION:
        raise CannotResumeError(f"the watch's state has version {state.version}, this one reads {VERSION}")
    return state
