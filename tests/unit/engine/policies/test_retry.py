"""How long the waits between tries are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.policies import BatchRetry

RETRY = BatchRetry(first_wait=timedelta(seconds=1), max_wait=timedelta(seconds=10))


@pytest.mark.parametrize(("tries", "step"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (6, 10), (10**6, 10)])
def test_waits_double_up_to_the_longest_with_jitter_above_a_floor(tries: int, step: float) -> None:
    """Never under half of the step, never over it, and not the same each time."""
    drawn = [RETRY.pause(tries) for _ in range(200)]
    assert step / 2 <= min(drawn) < step * 0.6
    assert step * 0.9 < max(drawn) <= step


@pytest.mark.parametrize(("asked", "least"), [(42.0, 42.0), (0.0, 0.5), (None, 0.5)])
def test_what_the_other_side_asks_for_is_a_lower_bound(asked: float | None, least: float) -> None:
    """Longer than our own wait it is kept to; shorter, ours stands."""
    assert RETRY.pause(1, asked=asked) >= least


def test_the_defaults_are_those_that_are_documented() -> None:
    """Six tries, half a second at first, a minute at most."""
    assert BatchRetry() == BatchRetry(
        max_tries=6, first_wait=timedelta(seconds=0.5), max_wait=timedelta(seconds=60)
    )


@pytest.mark.parametrize(
    "settings", [{"max_tries": None}, {"max_tries": "6"}, {"first_wait": 1}, {"max_wait": None}]
)
def test_numbers_without_a_unit_are_refused(settings: dict[str, Any]) -> None:
    """When the DAG is written, by name; not by the first failure at three in the morning."""
    with pytest.raises(UsageError, match=next(iter(settings))):
        BatchRetry(**settings)
