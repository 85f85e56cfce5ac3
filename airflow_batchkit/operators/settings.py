"""What the site decides for all its jobs: the section ``[batchkit]`` of Airflow's configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.provider_info import SECTION, default_of

_RETENTION_MARGIN = timedelta(days=1)
_MOST = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """The options of ``[batchkit]``; their meaning is told in the provider's configuration reference.

    :param min_reschedule_seconds: never come back sooner than this.
    :param max_wait_in_slot_seconds: a longer wait gives the worker slot back.
    :param max_legs: legs that one run may have.
    :param max_stuck_legs: legs in a row that may fail at one cursor.
    :param checkpoint_max_age: an older checkpoint is refused.
    :param environment_name: how the log and the alerts call this installation; empty when nobody said.
    :param s3_console_url: a page of the S3 store's web console, with ``{bucket}`` and ``{key}``; empty: none.
    """

    min_reschedule_seconds: float
    max_wait_in_slot_seconds: float
    max_legs: int
    max_stuck_legs: int
    checkpoint_max_age: timedelta
    environment_name: str
    s3_console_url: str

    @property
    def retention(self) -> timedelta:
        """How long the task state store keeps a checkpoint after its last save: longer than it is of use."""
        return self.checkpoint_max_age + _RETENTION_MARGIN


def site_settings() -> SiteSettings:
    """Read the options, with the provider's own defaults.

    :raises UsageError: an option that must be a number is none, or below zero, or endless.
    """
    from airflow.providers.common.compat.sdk import conf

    def text(name: str) -> str:
        return str(conf.get(SECTION, name, fallback=default_of(name)))

    def number(name: str) -> float:
        try:
            given = float(text(name))
        except ValueError:
            given = math.nan
        if not 0 <= given <= _MOST:
            raise UsageError(f"[{SECTION}] {name} = {text(name)!r}: must be a number from 0 to {_MOST:,}")
        return given

    return SiteSettings(
        min_reschedule_seconds=number("min_reschedule_seconds"),
        max_wait_in_slot_seconds=number("max_wait_in_slot_seconds"),
        max_legs=int(number("max_legs")),
        max_stuck_legs=int(number("max_stuck_legs")),
        checkpoint_max_age=timedelta(days=number("checkpoint_max_age_days")),
        environment_name=text("environment_name"),
        s3_console_url=text("s3_console_url"),
    )
