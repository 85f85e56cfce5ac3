"""The section ``[batchkit]`` is read with the provider's defaults."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.operators.settings import site_settings


def test_defaults() -> None:
    """Nothing needs to be configured."""
    settings = site_settings()
    assert settings.min_reschedule_seconds == 30
    assert settings.max_wait_in_slot_seconds == 60
    assert (settings.max_legs, settings.max_stuck_legs) == (200, 3)
    assert settings.checkpoint_max_age == timedelta(days=7)
    assert settings.retention == timedelta(days=8)
    assert settings.environment_name == ""


def test_options_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's way of setting an option works."""
    monkeypatch.setenv("AIRFLOW__BATCHKIT__MIN_RESCHEDULE_SECONDS", "12.5")
    monkeypatch.setenv("AIRFLOW__BATCHKIT__CHECKPOINT_MAX_AGE_DAYS", "0.5")
    monkeypatch.setenv("AIRFLOW__BATCHKIT__ENVIRONMENT_NAME", "production")
    settings = site_settings()
    assert settings.min_reschedule_seconds == 12.5
    assert settings.checkpoint_max_age == timedelta(hours=12)
    assert settings.environment_name == "production"


@pytest.mark.parametrize("value", ["many", "-1", "inf", "nan", "1e300", ""])
@pytest.mark.parametrize("name", ["max_legs", "min_reschedule_seconds", "max_wait_in_slot_seconds"])
def test_what_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """One line names the option; nothing means "for ever"."""
    monkeypatch.setenv(f"AIRFLOW__BATCHKIT__{name.upper()}", value)
    with pytest.raises(UsageError, match=rf"\[batchkit\] {name} = '{value}': must be a number"):
        site_settings()
