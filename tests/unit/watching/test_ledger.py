"""What has to be told: keys that stay the same, and many at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow_batchkit.notifications.incident import Incident
from airflow_batchkit.watching import ledger
from airflow_batchkit.watching.rules import Place
from airflow_batchkit.watching.state import OpenIncident, WatchState, decode_state, encode_state

PLACE = Place(url="https://airflow.example")
NOW = datetime(2026, 3, 2, 6, tzinfo=UTC)


def state_with(*incidents: Incident, **fields: bool) -> WatchState:
    """Make a state in which these incidents began an hour ago."""
    began = NOW - timedelta(hours=1)
    return WatchState(
        incidents={
            ledger.key_of(incident): OpenIncident(incident=incident, since=began, **fields)  # type: ignore[arg-type]  # told, owed
            for incident in incidents
        }
    )


def test_a_key_is_kind_place_and_which() -> None:
    """Facts and errors, which change from check to check, are not in it."""
    first = PLACE.incident("run_missing", "orders", instance="2026-03-02", facts=(("A", "1"),))
    again = PLACE.incident("run_missing", "orders", instance="2026-03-02", facts=(("A", "2"),))
    next_day = PLACE.incident("run_missing", "orders", instance="2026-03-03")

    assert ledger.key_of(first) == ledger.key_of(again) == "run_missing orders 2026-03-02"
    assert ledger.key_of(first) != ledger.key_of(next_day)
    assert ledger.key_of(PLACE.incident("part_down", subject="Airflow's triggerer")).startswith("part_down ")


def test_up_to_five_of_a_kind_are_told_one_by_one() -> None:
    """From the sixth on they are one message; another kind stays apart."""
    paused = [PLACE.incident("dag_paused", f"dag_{n}") for n in range(6)]
    gone = PLACE.incident("dag_gone", "old")

    few = list(ledger.news(state_with(*paused[:5], gone), settle=timedelta(0), now=NOW))
    many = list(ledger.news(state_with(*paused, gone), settle=timedelta(0), now=NOW))

    assert [len(message.keys) for message in few] == [1] * 6
    assert [len(message.keys) for message in many] == [6, 1]
    assert many[0].incident.subject == "each of 6 DAGs"


def test_the_beginnings_come_before_the_ends() -> None:
    """What began and ended while nobody could be told is told in that order."""
    state = state_with(PLACE.incident("dag_paused", "orders"), owed=True)
    state.incidents["dag_paused orders"].over_since = NOW - timedelta(minutes=10)

    messages = list(ledger.news(state, settle=timedelta(minutes=3), now=NOW))

    assert [message.incident.over for message in messages] == [False, True]
    for message in messages:
        ledger.told(state, message)
    assert state.incidents == {}


def test_a_state_is_the_same_when_it_is_read_back() -> None:
    """Incidents included, with their facts."""
    state = state_with(PLACE.incident("dag_paused", "orders", facts=(("Last success", "never"),)), told=True)

    assert decode_state(encode_state(state)) == state
