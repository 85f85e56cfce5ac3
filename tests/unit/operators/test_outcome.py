"""Each end of a leg becomes the one thing that Airflow should do about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException  # noqa: TID253  # what is tested
from airflow.sdk.exceptions import AirflowRescheduleException  # noqa: TID253  # what is tested

from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    CannotResumeError,
    ErrorBudgetExceededError,
    NoProgressError,
    PermanentError,
    PushbackError,
    ReconciliationError,
    RunTimeoutError,
    StoppedError,
    SupersededError,
    TargetHeldError,
    TransientError,
    UsageError,
)
from airflow_batchkit.operators.outcome import outcome
from airflow_batchkit.operators.settings import SiteSettings

SETTINGS = SiteSettings(
    min_reschedule_seconds=30,
    max_wait_in_slot_seconds=60,
    max_legs=200,
    max_stuck_legs=3,
    checkpoint_max_age=timedelta(days=7),
    environment_name="",
    s3_console_url="",
)


def of(error: BatchkitError, *, stop_asked: str | None = None, legs: int = 1) -> BaseException:
    """Return the outcome of an error."""
    return outcome(error, stop_asked=stop_asked, legs=legs, settings=SETTINGS)


@pytest.mark.parametrize(("asked", "given"), [(None, 30), (0.0, 30), (5.0, 30), (120.0, 120)])
def test_stopped_comes_back_later(asked: float | None, given: float) -> None:
    """A stop is a pause, never shorter than the site's least: sooner, Airflow would burn a retry."""
    raised = of(StoppedError("rate limit", asked))
    assert isinstance(raised, AirflowRescheduleException)
    away = (raised.reschedule_date - datetime.now(tz=UTC)).total_seconds()
    assert given - 5 < away <= given


@pytest.mark.parametrize(("left", "given"), [(1.0, 30), (95.0, 95)])
def test_target_that_another_run_holds_is_waited_for(left: float, given: float) -> None:
    """The run comes back when the other's lease is over, and uses up no retry; in the end it gives up."""
    held = TargetHeldError("held by run-1", left)
    raised = of(held)
    assert isinstance(raised, AirflowRescheduleException)
    away = (raised.reschedule_date - datetime.now(tz=UTC)).total_seconds()
    assert given - 5 < away <= given
    assert "stopped last because: held by run-1" in str(of(held, legs=200))


def test_superseded_comes_back_later() -> None:
    """A superseded leg calls no failure callback: a reschedule is refused where it must not count."""
    assert isinstance(of(SupersededError("gone")), AirflowRescheduleException)


def test_transient_errors_use_airflows_retries() -> None:
    """What was not sat out fails this try, as itself; unless a stop was the reason for it."""
    error = NoProgressError("no cursor moved")
    assert of(error) is error
    assert isinstance(of(PushbackError("slow down"), stop_asked="SIGTERM"), AirflowRescheduleException)


@pytest.mark.parametrize(
    "error",
    [
        UsageError("no such index"),
        PermanentError("disk full"),
        CannotResumeError("changed since the checkpoint: query"),
        ErrorBudgetExceededError("4 dead letters"),
        ReconciliationError("difference -1"),
        RunTimeoutError("too long"),
    ],
)
def test_permanent_errors_use_no_retry(error: BatchkitError) -> None:
    """It would fail again: the message says what kind it is and what it says."""
    raised = of(error)
    assert isinstance(raised, AirflowFailException)
    assert str(raised) == f"{type(error).__name__}: {error}"


def test_nothing_comes_back_for_ever() -> None:
    """The last leg that is allowed fails instead of coming back, and says how to go on."""
    assert isinstance(of(StoppedError("paused"), legs=199), AirflowRescheduleException)
    raised = of(StoppedError("paused"), legs=200)
    assert isinstance(raised, AirflowFailException)
    assert "max_legs" in str(raised)
    assert isinstance(of(TransientError("no answer"), legs=200), TransientError)
