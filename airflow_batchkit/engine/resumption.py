"""Decides what a new leg does with the checkpoint it finds; pure, so that every row can be tested."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_batchkit.engine.charging import HOW_TO_GO_ON, why_exceeded
from airflow_batchkit.engine.exceptions import CannotResumeError, ErrorBudgetExceededError

if TYPE_CHECKING:
    from airflow_batchkit.engine.checkpoint import Checkpoint
    from airflow_batchkit.engine.job import RunIdentity

HOW_TO_RESTART = "to begin anew, restart the run (when_cleared='restart' and clear, or --restart)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do.

    :param action: ``begin``, ``resume`` or ``done``.
    :param reason: one line for the log.
    :param new_budget_period: a person cleared a failed run: the error budget is full again.
    """

    action: str
    reason: str
    new_budget_period: bool = False


def decide(  # noqa: PLR0911  # one return per row of the table in docs/airflow.md
    stored: Checkpoint | None, identity: RunIdentity, *, mode: str, now: float, start_at: str | None = None
) -> Decision:
    """Decide by identity, age and status; the fingerprints are compared later, once the source is open.

    :param stored: the checkpoint that was found.
    :param identity: which run this is.
    :param mode: ``real``, ``partial`` or ``local``.
    :param now: seconds since the epoch.
    :param start_at: where a partial run begins, as the user wrote it.
    :raises CannotResumeError: the checkpoint is of another mode, or too old.
    :raises ErrorBudgetExceededError: the run failed on its error budget and nobody cleared it.
    """
    if stored is None:
        return Decision(action="begin", reason="no checkpoint: the run begins")
    adopted = _is_adopted(stored, identity)
    cleared = not adopted and stored.clear_marker != identity.clear_marker
    if not adopted and not is_same_run(stored, identity.run):
        return Decision(
            action="begin", reason=f"the checkpoint is of another run ({stored.run}): this run begins"
        )
    if identity.restart and cleared:  # not in a retry of the run that was asked to restart: that one goes on
        return Decision(action="begin", reason="restart was asked: the checkpoint is not used")
    if stored.status == "completed":
        if cleared:
            return Decision(action="begin", reason="cleared after it completed: the run begins anew")
        if stored.fingerprints.get("start_at") != part_fingerprints(start_at).get("start_at"):
            return Decision(action="begin", reason="completed from another start_at: the run begins anew")
        return Decision(action="done", reason="the run is complete already: the stored report is returned")
    if cleared and identity.when_cleared == "restart":
        return Decision(action="begin", reason="cleared with when_cleared='restart': the run begins anew")
    _refuse_what_does_not_fit(stored, identity, mode=mode, now=now)
    if stored.budget.exceeded and not cleared:
        raise ErrorBudgetExceededError(f"{why_exceeded(stored)}; {HOW_TO_GO_ON}")
    return Decision(
        action="resume",
        reason=f"resumes after {stored.counts.read:,} records (leg {stored.legs + 1}"
        f"{f', of the run {stored.run} that {stored.job!r} began' if adopted else ''})",
        new_budget_period=cleared,
    )


def is_same_run(stored: Checkpoint, run: str) -> bool:
    """Whether a checkpoint is of this run, by either of the run's names."""
    return run in {stored.run, stored.alias}


def _is_adopted(stored: Checkpoint, identity: RunIdentity) -> bool:
    # Whether it really is the same work is for the fingerprints to say.
    return stored.alias == "" and stored.run != identity.run and stored.status != "completed"


def _refuse_what_does_not_fit(stored: Checkpoint, identity: RunIdentity, *, mode: str, now: float) -> None:
    if stored.mode != mode:
        raise CannotResumeError(
            f"the checkpoint is of a {stored.mode} run, this is a {mode} run; {HOW_TO_RESTART}"
        )
    age = timedelta(seconds=max(0.0, now - stored.saved_at))
    if age > identity.max_checkpoint_age:
        raise CannotResumeError(
            f"the checkpoint is {age.days} days old, at most {identity.max_checkpoint_age.days} are allowed; "
            f"{HOW_TO_RESTART}"
        )


def part_fingerprints(start_at: str | None) -> dict[str, str]:
    """Return what makes a part of a source another job than its whole, empty for the whole."""
    return {} if start_at is None else {"start_at": hashlib.sha256(start_at.encode()).hexdigest()[:12]}


def compare_fingerprints(stored: Mapping[str, str], current: Mapping[str, str]) -> None:
    """Refuse to go on with a cursor that means something else now.

    :raises CannotResumeError: names what differs.
    """
    differing = sorted(
        name for name in stored.keys() | current.keys() if stored.get(name) != current.get(name)
    )
    if differing:
        raise CannotResumeError(
            f"changed since the checkpoint: {', '.join(differing)}; going on would mix two jobs' output. "
            f"Undo the change to resume; {HOW_TO_RESTART}"
        )


def generation_of(run: str, clear_marker: str, fingerprints: Mapping[str, str]) -> str:
    """Name a run's output: 8 hex digits of run, clear marker and fingerprints."""
    text = "\n".join(
        [run, clear_marker, *(f"{name}={value}" for name, value in sorted(fingerprints.items()))]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:8]
