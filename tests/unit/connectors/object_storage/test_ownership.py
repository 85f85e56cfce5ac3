"""An output belongs to one leg at a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import pytest

from airflow_batchkit.connectors.object_storage.ownership import Ownership
from airflow_batchkit.engine.exceptions import (
    SupersededError,
    TargetHeldError,
    TransientError,
    UsageError,
)
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.owner import LEASE_SECONDS
from tests.support.object_storage import Place, leg, make_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_batchkit.connectors.object_storage.store import ObjectStore

OWNER = "_batchkit/owner.json"
REST = '"generation":"0a0a0a0a","lease_until":4e9'


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty folder."""
    return make_place("file", request)


@pytest.fixture
def store(place: Place) -> ObjectStore:
    """Give the folder, opened."""
    return place.store()


def record(place: Place) -> dict[str, Any]:
    """Read the owner record."""
    found: dict[str, Any] = json.loads(place.content(OWNER))
    return found


def expire(place: Place) -> None:
    """Let the lease be over."""
    place.store().put(OWNER, json.dumps({**record(place), "lease_until": 1.0}).encode())


def owned(store: ObjectStore, token: str, **changes: Any) -> Ownership:
    """Claim the output for a leg."""
    ownership = Ownership(store, leg(token, **changes), root="")
    ownership.claim()
    return ownership


def test_claim_is_written_down(store: ObjectStore, place: Place) -> None:
    """The record names job, run, leg and host, and the lease begins now."""
    owned(store, "1")
    found = record(place)
    assert (found["job"], found["run"], found["token"]) == ("job", "run-1", "1" * 16)
    assert 0 < found["lease_until"] - store.now() <= LEASE_SECONDS
    owned(store, "1")


def test_live_run_keeps_others_out(store: ObjectStore, place: Place) -> None:
    """Another run waits until the lease is over, then takes the output over; the first one finds out."""
    first = owned(store, "1")
    with pytest.raises(TargetHeldError, match="held by run run-1"):
        owned(store, "2", run="run-2", generation="0b0b0b0b")
    expire(place)
    second = owned(store, "2", run="run-2", generation="0b0b0b0b")
    assert second.untidy == ("0a0a0a0a",)
    with pytest.raises(SupersededError, match=r"owned by leg 2+ of run run-2"):
        first.confirm()
    with pytest.raises(SupersededError):
        first.renew_if_due()


def test_newer_leg_of_the_run_takes_over_at_once(store: ObjectStore) -> None:
    """The same run does not wait for itself."""
    first = owned(store, "1")
    owned(store, "2")
    with pytest.raises(SupersededError):
        first.renew_if_due(for_seconds=60)
    first.release()


def test_other_job_is_refused_even_when_nobody_is_there(store: ObjectStore) -> None:
    """A prefix stays its job's, until a person removes the record."""
    owned(store, "1").release()
    with pytest.raises(UsageError, match=r"belongs to the job 'job' .*delete file:///.*owner\.json"):
        owned(store, "2", job="other")
    store.delete([OWNER])
    owned(store, "2", job="other")


def test_lease_is_renewed_only_when_it_is_due(
    store: ObjectStore, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save each second does not mean a request each second."""
    ownership = owned(store, "1")
    before = record(place)["lease_until"]
    ownership.renew_if_due()
    assert record(place)["lease_until"] == before
    now = store.now()
    monkeypatch.setattr(store, "now", lambda: now + 60)
    ownership.renew_if_due()
    assert record(place)["lease_until"] == pytest.approx(now + 60 + LEASE_SECONDS, abs=1)
    ownership.renew_if_due(for_seconds=600)
    assert record(place)["lease_until"] == pytest.approx(now + 660 + LEASE_SECONDS, abs=1)


@pytest.mark.fault("clock", at="file")
@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_jump_of_the_clock_takes_no_output_away(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """The leg that owns it goes on to own it: what decides is the record, not what time it is."""
    ownership = owned(store, "1")
    now = store.now()
    monkeypatch.setattr(store, "now", lambda: now + jump)
    ownership.renew_if_due()
    ownership.confirm()
    with pytest.raises(TargetHeldError):
        owned(store, "2", run="run-2", generation="0b0b0b0b")
    monkeypatch.setattr(store, "now", lambda: now)
    ownership.renew_if_due()
    ownership.confirm()
    ownership.release()


def test_untidy_generations_ride_along_until_they_are_removed(store: ObjectStore, place: Place) -> None:
    """What has to be removed is written down before it is needed, and forgotten once it is gone."""
    ownership = owned(store, "1")
    ownership.confirm(untidy="0c0c0c0c")
    ownership.confirm(untidy="0c0c0c0c")
    ownership.confirm(untidy="0a0a0a0a")
    assert record(place)["untidy"] == ["0c0c0c0c"]
    ownership.release()
    assert record(place)["untidy"] == ["0c0c0c0c"]
    again = owned(store, "2", run="run-2", generation="0b0b0b0b")
    assert again.untidy == ("0c0c0c0c", "0a0a0a0a")
    again.tidied()
    again.release()
    assert record(place)["untidy"] == []
    assert record(place)["released"]


def test_removed_record_stops_its_owner(store: ObjectStore) -> None:
    """Who removes the record takes the output away from whoever writes it now."""
    ownership = owned(store, "1")
    store.delete([OWNER])
    with pytest.raises(SupersededError, match="its owner record was removed"):
        ownership.confirm()


def test_damaged_record_is_told(store: ObjectStore) -> None:
    """A record that cannot be read is not written over in silence."""
    store.put(OWNER, b"{")
    with pytest.raises(UsageError, match="is no owner record"):
        owned(store, "1")


def rivals(store: ObjectStore, *, times: int) -> Callable[[str, Literal["before", "after"]], None]:
    """Make a probe: just before each of so many claims, another leg of the run is quicker."""
    quicker: list[str] = []

    def claim_first(name: str, when: Literal["before", "after"]) -> None:
        if (name, when) == ("sink.claim", "before") and len(quicker) < times:
            quicker.append(name)
            store.put(OWNER, f'{{"job":"job","run":"run-1","token":"{len(quicker)}",{REST}}}'.encode())

    return claim_first


def test_who_comes_second_looks_again(store: ObjectStore, place: Place) -> None:
    """A claim that another leg was quicker with is decided anew, by what lies there now."""
    with probing(rivals(store, times=2)):
        owned(store, "9")
    assert record(place)["token"] == "9" * 16


def test_who_always_comes_second_gives_up_for_now(store: ObjectStore, place: Place) -> None:
    """Several legs that want an output at once do not keep each other busy for ever."""
    with probing(rivals(store, times=100)), pytest.raises(TransientError, match="several legs want it"):
        owned(store, "9")
    assert record(place)["token"] != "9" * 16


def test_the_target_is_named_as_the_user_wrote_it(store: ObjectStore, place: Place) -> None:
    """Messages name the location, without a slash at its end."""
    first = owned(store, "1")
    owned(store, "2")
    with pytest.raises(SupersededError, match=rf"^{place.url} is owned by leg 2+ of run run-1; this leg "):
        first.confirm()
    with pytest.raises(SupersededError, match=rf"^{place.url} is not owned by this leg \(1+\)"):
        first.confirm()


def test_what_is_given_up_stays_given_up(store: ObjectStore, place: Place) -> None:
    """After its release a leg neither renews nor releases what another may have by then."""
    ownership = owned(store, "1")
    ownership.release()
    with pytest.raises(SupersededError, match="is not owned by this leg"):
        ownership.renew_if_due(for_seconds=600)
    assert record(place)["released"]
    owned(store, "2", run="run-2")
    ownership.release()
    assert not record(place)["released"]


def test_a_record_of_our_own_that_we_do_not_know_is_ours(store: ObjectStore, place: Place) -> None:
    """Where an answer that did not reach us as it was hid what our own write made, the leg goes on."""
    ownership = owned(store, "1")
    store.put(OWNER, json.dumps(record(place)).encode() + b" ")
    ownership.confirm()
    ownership.confirm()
    assert record(place)["token"] == "1" * 16
