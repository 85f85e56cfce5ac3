"""Who owns a target: pure rules about one small record that lies at the target itself.

The connector keeps the record by compare-and-set (a conditional PUT, ``if_seq_no``, a row); what may be done
with it is decided here, so that every sink decides alike and each row of the table can be tested by itself.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

from airflow_batchkit.engine.exceptions import TargetHeldError, UsageError

if TYPE_CHECKING:
    from airflow_batchkit.engine.sink import Leg

LEASE_SECONDS = 120.0
_RENEW_BELOW = LEASE_SECONDS * 2 / 3
_MAX_UNTIDY = 50


class OwnerRecord(msgspec.Struct, kw_only=True, frozen=True):
    """The record at the target.

    :param job: what is done there, in all its runs.
    :param run: the run that owns the target, or owned it last.
    :param token: the leg of it.
    :param generation: names that run's output.
    :param lease_until: seconds since the epoch, by the target's clock.
    :param released: the owner gave the target up.
    :param host: where the leg runs, for messages.
    :param holder: who sees to it that the run has one leg at a time: Airflow, or a lock of a machine.
    :param untidy: generations of which copies may still lie at the target: the next publication removes them.
    """

    job: str
    run: str
    token: str
    generation: str
    lease_until: float
    released: bool = False
    host: str = ""
    holder: str = ""
    untidy: tuple[str, ...] = ()


class Verdict(enum.Enum):
    """What a leg that wants the target may do."""

    FREE = "nobody owned it yet"
    MINE = "this leg owns it already"
    SAME_RUN = "an older leg of the same run owns it: the newer one takes over at once"
    GIVEN_UP = "another run, or the same run in other hands, released it or let its lease expire"
    HELD = "another run of the same job is alive, or this run in other hands"
    OTHER_JOB = "it belongs to another job"


def decide(record: OwnerRecord | None, leg: Leg, *, now: float) -> Verdict:
    """Decide whether a leg may claim the target.

    :param record: what lies at the target, None when there is nothing.
    :param now: seconds since the epoch, by the target's clock.
    """
    if record is None:
        return Verdict.FREE
    if record.job not in {leg.job, leg.former_job}:
        return Verdict.OTHER_JOB
    if record.token == leg.token:
        return Verdict.MINE
    if record.run == leg.run and record.holder == leg.holder:
        return Verdict.SAME_RUN
    if record.released or record.lease_until <= now:
        return Verdict.GIVEN_UP
    return Verdict.HELD


def refuse(record: OwnerRecord | None, leg: Leg, *, now: float, target: str, record_place: str) -> None:
    """Raise when the leg may not claim the target.

    :param target: the target, for the message.
    :param record_place: where the record lies: removing it hands the target over on purpose.
    :raises TargetHeldError: another run of this job is alive; says until when.
    :raises UsageError: the target belongs to another job.
    """
    verdict = decide(record, leg, now=now)
    if record is None:
        return
    if verdict is Verdict.OTHER_JOB:
        raise UsageError(
            f"{target} belongs to the job {record.job!r} (run {record.run}), this is {leg.job!r}: "
            f"choose another prefix, or delete {record_place} to take it over on purpose"
        )
    if verdict is Verdict.HELD:
        left = record.lease_until - now
        raise TargetHeldError(
            f"{target} is held by run {record.run} of {record.job!r} (leg {record.token}"
            f"{f' on {record.host}' if record.host else ''}"
            f"{f', started by {record.holder}' if record.holder else ''}) for {left:.0f} s more: "
            "wait for it, or stop it and try again",
            max(left, 1.0),
        )


def claimed(record: OwnerRecord | None, leg: Leg, *, now: float, host: str) -> OwnerRecord:
    """Return the record with which a leg claims the target; ask :func:`refuse` first."""
    untidy: tuple[str, ...] = ()
    if record is not None:
        older = dict.fromkeys((*record.untidy, record.generation))
        untidy = tuple(generation for generation in older if generation != leg.generation)[-_MAX_UNTIDY:]
    return OwnerRecord(
        job=leg.job,
        run=leg.run,
        token=leg.token,
        generation=leg.generation,
        lease_until=now + LEASE_SECONDS,
        host=host,
        holder=leg.holder,
        untidy=untidy,
    )


def renewal_due(record: OwnerRecord, *, now: float, for_seconds: float = 0.0) -> bool:
    """Tell whether less than two thirds of the lease are left, or less than a planned pause needs."""
    return record.lease_until - now < (for_seconds + LEASE_SECONDS if for_seconds else _RENEW_BELOW)


def renewed(record: OwnerRecord, *, now: float, for_seconds: float = 0.0) -> OwnerRecord:
    """Return the record with a fresh lease; after a planned pause a whole lease is left to come back in."""
    return msgspec.structs.replace(record, lease_until=now + for_seconds + LEASE_SECONDS, released=False)


def released(record: OwnerRecord, *, tidy: bool) -> OwnerRecord:
    """Return the record with which a leg gives the target up.

    :param tidy: nothing of older generations is left at the target.
    """
    untidy = () if tidy else record.untidy
    return msgspec.structs.replace(record, lease_until=0.0, released=True, untidy=untidy)
