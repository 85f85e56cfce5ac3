"""How the end of a leg is told to Airflow: done, come back later, use up a retry, or fail for good.

==============================================  ==============================================================
the engine says                                 Airflow does
==============================================  ==============================================================
``StoppedError``                                comes back later; no retry is used, no callback runs
``TargetHeldError``                             the same, when the other run's lease is over
``TransientError`` while a stop was asked       the same
``TransientError``                              fails this try; its retries decide
``SupersededError``                             nothing: no callback runs, and a reschedule of a task instance
                                                that is gone or not running is refused by the API server
other ``BatchkitError`` (usage, permanent)      fails for good: it would fail again
==============================================  ==============================================================
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    StoppedError,
    SupersededError,
    TargetHeldError,
    TransientError,
)

if TYPE_CHECKING:
    from airflow_batchkit.operators.settings import SiteSettings


def outcome(
    error: BatchkitError, *, stop_asked: str | None, legs: int, settings: SiteSettings
) -> BaseException:
    """Return what the operator raises in place of an error of the engine.

    :param error: how the leg ended.
    :param stop_asked: why the leg was asked to stop, None when nobody asked.
    :param legs: how many legs this run has had, this one included.
    """
    from airflow.providers.common.compat.sdk import AirflowFailException

    if isinstance(error, SupersededError):
        return come_back_after(0.0, settings)
    pause = _pause(error, stop_asked)
    if pause is not None:
        if legs >= settings.max_legs:
            return AirflowFailException(
                f"the run had {legs} legs, {settings.max_legs} are allowed; raise [batchkit] max_legs "
                f"and clear the task to go on from the checkpoint. It stopped last because: {error}"
            )
        return come_back_after(pause, settings)
    if isinstance(error, TransientError):
        return error
    return AirflowFailException(f"{type(error).__name__}: {error}")


def _pause(error: BatchkitError, stop_asked: str | None) -> float | None:
    """Return after how many seconds the run goes on, None where Airflow shall hear of a failure."""
    if isinstance(error, StoppedError):
        return error.resume_after or 0.0
    if isinstance(error, TargetHeldError):
        # The other run is at work: to wait for it costs a retry no more than to wait in a queue does.
        return error.retry_after or 0.0
    return 0.0 if isinstance(error, TransientError) and stop_asked is not None else None


def come_back_after(seconds: float, settings: SiteSettings) -> BaseException:
    """Return the exception that gives the worker slot back and has the task started again later.

    Sooner than about 10 s the scheduler takes the old leg's exit for an external kill and burns a retry.
    """
    try:
        from airflow.sdk.exceptions import AirflowRescheduleException
    except ImportError:  # below Airflow 3.2
        from airflow.exceptions import AirflowRescheduleException

    pause = max(seconds, settings.min_reschedule_seconds)
    when = datetime.now(tz=UTC) + timedelta(seconds=pause)
    return AirflowRescheduleException(when)  # type: ignore[no-untyped-call]  # Airflow's own
