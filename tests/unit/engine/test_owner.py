"""Who may claim a target: every row of the table."""

from __future__ import annotations

import msgspec
import pytest

from airflow_batchkit.engine.exceptions import TargetHeldError, UsageError
from airflow_batchkit.engine.owner import (
    LEASE_SECONDS,
    OwnerRecord,
    Verdict,
    claimed,
    decide,
    refuse,
    released,
    renewal_due,
    renewed,
)
from tests.support.object_storage import leg

NOW = 1_000_000.0


def record(
    *,
    job: str = "job",
    run: str = "run-1",
    number: int = 1,
    lease_until: float = NOW + 60,
    given_up: bool = False,
    untidy: tuple[str, ...] = (),
    holder: str = "",
) -> OwnerRecord:
    """Make what lies at the target."""
    return OwnerRecord(
        job=job,
        run=run,
        token=str(number) * 16,
        generation="0a0a0a0a",
        lease_until=lease_until,
        released=given_up,
        host="worker-7",
        holder=holder,
        untidy=untidy,
    )


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (None, Verdict.FREE),
        (record(), Verdict.MINE),
        (record(number=2), Verdict.SAME_RUN),
        (record(number=2, lease_until=NOW - 1), Verdict.SAME_RUN),
        (record(run="run-2", number=2), Verdict.HELD),
        (record(run="run-2", number=2, lease_until=NOW), Verdict.GIVEN_UP),
        (record(run="run-2", number=2, given_up=True), Verdict.GIVEN_UP),
        (record(number=2, holder="Airflow"), Verdict.HELD),
        (record(number=2, holder="Airflow", lease_until=NOW), Verdict.GIVEN_UP),
        (record(number=2, holder="Airflow", given_up=True), Verdict.GIVEN_UP),
        (record(job="other", number=2), Verdict.OTHER_JOB),
        (record(job="other", number=2, lease_until=0, given_up=True), Verdict.OTHER_JOB),
    ],
)
def test_verdicts(found: OwnerRecord | None, verdict: Verdict) -> None:
    """Same run: at once; other run, or other hands: once given up; other job: never by itself."""
    assert decide(found, leg("1"), now=NOW) is verdict


def test_the_same_holder_takes_over_at_once() -> None:
    """Who sees to it that there is one leg at a time knows that the older one is dead."""
    newer = leg("1", holder="Airflow")
    assert decide(record(number=2, holder="Airflow"), newer, now=NOW) is Verdict.SAME_RUN
    assert decide(record(number=2), newer, now=NOW) is Verdict.HELD


def test_a_run_that_another_job_began_takes_its_target_along() -> None:
    """Only for the leg that goes on with that job's run; the record then names the newer job."""
    found = record(job="copy a b", run="run-1", number=2, given_up=True)
    assert decide(found, leg("1", former_job="copy a b"), now=NOW) is Verdict.SAME_RUN
    assert claimed(found, leg("1", former_job="copy a b"), now=NOW, host="h").job == "job"


def refuse_over(found: OwnerRecord | None) -> None:
    """Ask whether leg 1 is refused."""
    refuse(found, leg("1"), now=NOW, target="s3://lake/orders", record_place="s3://lake/orders/owner.json")


def test_live_run_is_named_with_the_time_to_wait() -> None:
    """The refusal says which run, where, how long, and gives the seconds to whoever plans the next try."""
    with pytest.raises(TargetHeldError, match=r"run-2 .* on worker-7\) for 60 s more") as held:
        refuse_over(record(run="run-2", number=2))
    assert held.value.retry_after == 60


def test_other_hands_are_named() -> None:
    """Who is refused reads who started the leg that has the target."""
    with pytest.raises(TargetHeldError, match=r"on worker-7, started by Airflow\) for 60 s more"):
        refuse_over(record(number=2, holder="Airflow"))


def test_other_job_is_refused_with_the_way_out() -> None:
    """Another job's prefix is not overwritten by mistake; the message says how to do it on purpose."""
    with pytest.raises(UsageError, match=r"belongs to the job 'other'.*delete s3://lake/orders/owner\.json"):
        refuse_over(record(job="other"))


@pytest.mark.parametrize("found", [None, record(), record(number=2), record(run="run-2", given_up=True)])
def test_everything_else_passes(found: OwnerRecord | None) -> None:
    """Nothing is refused that may be claimed."""
    refuse_over(found)


def test_claim_remembers_older_generations() -> None:
    """What earlier owners may have left is handed on from owner to owner until somebody has removed it."""
    found = record(run="run-0", number=2, untidy=("00000001", "0b0b0b0b"))
    mine = claimed(found, leg("1", generation="0b0b0b0b"), now=NOW, host="here")
    assert mine.untidy == ("00000001", "0a0a0a0a")
    assert mine.lease_until == NOW + LEASE_SECONDS
    assert (mine.run, mine.token, mine.released) == ("run-1", "1" * 16, False)
    assert claimed(None, leg("1"), now=NOW, host="").untidy == ()


def test_claim_says_where_the_leg_runs_and_in_whose_hands() -> None:
    """Who is refused later reads both, and the same hands take over at once."""
    mine = claimed(None, leg("1", holder="Airflow"), now=NOW, host="worker-7")
    assert (mine.host, mine.holder) == ("worker-7", "Airflow")


def test_a_record_without_host_and_holder_is_in_nobodys_hands() -> None:
    """As an older version wrote it: a leg of the same run takes over, and the refusal names no host."""
    text = b'{"job":"job","run":"run-1","token":"x","generation":"0a0a0a0a","lease_until":1000060}'
    found = msgspec.json.decode(text, type=OwnerRecord)
    assert decide(found, leg("1"), now=NOW) is Verdict.SAME_RUN
    with pytest.raises(TargetHeldError, match=r"\(leg x\) for 60 s more"):
        refuse_over(msgspec.structs.replace(found, run="run-2"))


def test_remembered_generations_are_bounded() -> None:
    """The record stays small however many runs fail."""
    found = record(untidy=tuple(f"{number:08x}" for number in range(500)))
    assert len(claimed(found, leg("1", generation="ffffffff"), now=NOW, host="").untidy) <= 50


def test_renewal_is_due_below_two_thirds() -> None:
    """A lease is renewed early enough to survive a few failed renewals, and not at every save."""
    assert not renewal_due(record(lease_until=NOW + 119), now=NOW)
    assert not renewal_due(record(lease_until=NOW + 81), now=NOW)
    assert renewal_due(record(lease_until=NOW + 79), now=NOW)


def test_planned_pause_is_covered_with_a_whole_lease_after_it() -> None:
    """Who announces a pause still owns the target when it is over."""
    assert renewal_due(record(lease_until=NOW + 119), now=NOW, for_seconds=1)
    later = renewed(record(), now=NOW, for_seconds=600)
    assert later.lease_until == NOW + 600 + LEASE_SECONDS
    assert not renewal_due(later, now=NOW, for_seconds=600)


def test_a_renewed_lease_is_a_whole_one_and_held() -> None:
    """Also where the leg had given the target up and wants it back."""
    again = renewed(record(given_up=True), now=NOW)
    assert (again.lease_until, again.released) == (NOW + LEASE_SECONDS, False)


def test_release_ends_the_lease_and_forgets_what_is_tidied() -> None:
    """After a release anybody may claim; older generations are forgotten only when they are gone."""
    found = record(untidy=("00000001",))
    assert released(found, tidy=True).untidy == ()
    assert released(found, tidy=False).untidy == ("00000001",)
    assert decide(released(found, tidy=True), leg("2", run="run-2"), now=NOW) is Verdict.GIVEN_UP
    assert released(found, tidy=True).lease_until < NOW
