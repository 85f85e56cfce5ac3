"""There is no way to say "for ever", and none to say "never"."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from airflow_batchkit.connectors.callable import CallableSink
from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.operators.pipeline import BatchPipelineOperator

FIELDS = [field.name for field in dataclasses.fields(Timeouts)]


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize(
    "limit",
    [timedelta(0), timedelta(seconds=-1), timedelta.max, None, 60, 1.5, "60", "", float("inf")],
    ids=repr,
)
def test_what_is_no_limit_is_refused_by_name(name: str, limit: Any) -> None:
    """Zero, below zero, nothing, numbers without a unit, and what would outlast everybody."""
    with pytest.raises(UsageError, match=rf"Timeouts\({name}=.*: must be a timedelta above zero"):
        Timeouts(**{name: limit})
    with pytest.raises(UsageError, match=name):
        dataclasses.replace(Timeouts(), **{name: limit})


@pytest.mark.parametrize("name", FIELDS)
def test_every_limit_has_a_default(name: str) -> None:
    """Whatever is left out has a value, of a day at most."""
    limit = getattr(Timeouts(), name)
    assert timedelta(0) < limit <= timedelta(days=1)


def test_an_operator_without_timeouts_has_the_defaults() -> None:
    """None is no way to say "for ever" either."""
    operator = BatchPipelineOperator(
        task_id="t", source=IterableSource(records=list), sink=CallableSink(function=print), timeouts=None
    )
    assert operator.job("t").timeouts == Timeouts()


@pytest.mark.parametrize("timeouts", [60, timedelta(minutes=1), "60 s"])
def test_a_number_is_no_timeouts(timeouts: Any) -> None:
    """An operator that is given one says so before any work, instead of failing at the first limit."""
    operator = BatchPipelineOperator(
        task_id="t", source=IterableSource(records=list), sink=CallableSink(function=print), timeouts=timeouts
    )
    with pytest.raises(UsageError, match=r"timeouts=.*: must be a Timeouts\(…\)"):
        operator.job("t")
