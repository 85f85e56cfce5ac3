"""The policies refuse what can never work, and the error budget does its sums."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from airflow_batchkit.engine import policies
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, ErrorBudget, RateLimit, Timeouts
from airflow_batchkit.engine.policies.budget import ERROR_CLASSES, Spent
from airflow_batchkit.engine.values import Value
from tests.support import error_tables

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("name", policies.__all__)
def test_every_policy_has_defaults_and_is_a_value(name: str) -> None:
    """No setting has to be given, all are given by name, and there are at most six of them."""
    policy = getattr(policies, name)

    assert isinstance(policy(), Value)
    parameters = inspect.signature(policy).parameters.values()
    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}
    assert len(parameters) <= 6
    assert set(policy().serialize()) == {parameter.name for parameter in parameters}


@pytest.mark.parametrize(
    ("make", "settings", "words"),
    [
        (BatchPolicy, {"max_records": 0}, "max_records=0"),
        (BatchPolicy, {"max_records": -1}, "max_records=-1"),
        (BatchPolicy, {"max_records": 1.5}, "max_records=1.5"),
        (BatchPolicy, {"max_records": True}, "max_records=True"),
        (BatchPolicy, {"max_bytes": 0}, "max_bytes=0"),
        (BatchPolicy, {"max_bytes": "10"}, "max_bytes='10'"),
        (ErrorBudget, {"max_dead_letters": -1}, "max_dead_letters=-1"),
        (ErrorBudget, {"max_fraction": 0.0}, "max_fraction=0.0"),
        (ErrorBudget, {"max_fraction": 1.01}, "max_fraction=1.01"),
        (ErrorBudget, {"max_fraction": float("nan")}, "max_fraction=nan"),
        (ErrorBudget, {"max_dead_letters": "10"}, "max_dead_letters='10'"),
        (ErrorBudget, {"max_fraction": 0.1, "min_sample": 0}, "min_sample=0"),
        (ErrorBudget, {"min_sample": 1.5}, "min_sample=1.5"),
        (ErrorBudget, {"max_per_class": {"record": -1}}, "max_per_class={'record': -1}"),
        (ErrorBudget, {"max_per_class": {"record": True}}, "max_per_class={'record': True}"),
        (
            ErrorBudget,
            {"max_per_class": {"record": 1, "KeyError": 1}},
            "no error class 'KeyError', only record, size, usage, permanent, transient, pushback",
        ),
        (BatchRetry, {"max_tries": 0}, "max_tries=0"),
        (BatchRetry, {"first_wait": timedelta(0)}, "first_wait=0:00:00"),
        (BatchRetry, {"first_wait": 2 * SECOND, "max_wait": SECOND}, "first_wait=0:00:02"),
        (RateLimit, {"records_per_second": 0}, "records_per_second=0"),
        (RateLimit, {"bytes_per_second": -5.0}, "bytes_per_second=-5.0"),
        (RateLimit, {"records_per_second": float("nan")}, "records_per_second=nan"),
        (RateLimit, {"records_per_second": float("inf")}, "records_per_second=inf"),
        (Timeouts, {"run": timedelta(0)}, "run="),
        (Timeouts, {"connect": -SECOND}, "connect="),
        (Timeouts, {"no_progress": None}, "no_progress=None"),
        (Timeouts, {"batch": 600}, "batch=600"),
    ],
)
def test_what_can_never_work_is_refused(
    make: Callable[..., Any], settings: dict[str, Any], words: str
) -> None:
    """When it is made, in one line that names the field and what it holds."""
    with pytest.raises(UsageError) as caught:
        make(**settings)

    assert words in str(caught.value)
    assert str(caught.value).startswith(make.__name__)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (BatchPolicy, {"max_records": 1, "max_bytes": 1}),
        (ErrorBudget, {"max_dead_letters": 0}),
        (ErrorBudget, {"max_fraction": 1.0, "min_sample": 1}),
        (BatchRetry, {"max_tries": 1, "first_wait": SECOND, "max_wait": SECOND}),
        (RateLimit, {"records_per_second": 0.001, "bytes_per_second": 1}),
        (Timeouts, {"connect": timedelta(microseconds=1)}),
    ],
)
def test_the_smallest_that_works_is_allowed(make: Callable[..., Any], settings: dict[str, Any]) -> None:
    """The edge belongs to what is allowed."""
    make(**settings)


def test_there_is_no_waiting_for_ever() -> None:
    """Every limit that is left out has a value."""
    seconds = Timeouts().serialize()

    assert set(seconds) == {"connect", "read", "request", "batch", "no_progress", "run"}
    assert all(isinstance(limit, float) and 0 < limit <= 86_400 for limit in seconds.values())


@pytest.mark.parametrize(
    ("budget", "dead_lettered", "read", "words"),
    [
        pytest.param({}, 0, 100, None, id="nothing wrong"),
        pytest.param({}, 1, 100, "1 dead letters, 0 allowed", id="by default the first fails"),
        pytest.param({"max_dead_letters": 10}, 10, 100, None, id="ten of ten"),
        pytest.param({"max_dead_letters": 10}, 10, 10**6, None, id="ten of a million"),
        pytest.param(
            {"max_dead_letters": 10}, 11, 100, "11 dead letters, 10 allowed", id="the eleventh fails"
        ),
        pytest.param({"max_dead_letters": 10}, 11, 10**12, "10 allowed", id="whatever the sample"),
        pytest.param({"max_fraction": 0.01}, 500, 999, None, id="sample too small"),
        pytest.param(
            {"max_fraction": 0.01}, 11, 1000, "11 of 1,000 records (1.10%), 1.00%", id="sample reached"
        ),
        pytest.param({"max_fraction": 0.01}, 10, 1000, None, id="exactly the fraction"),
        pytest.param({"max_fraction": 0.5, "min_sample": 1}, 1, 1, "(100.00%), 50.00%", id="sample of one"),
        pytest.param({"max_fraction": 1.0, "min_sample": 1}, 7, 7, None, id="all may fail"),
        pytest.param(
            {"max_dead_letters": 5, "max_fraction": 0.5}, 6, 10, "5 allowed", id="count comes first"
        ),
        pytest.param(
            {"max_dead_letters": 5, "max_fraction": 0.001}, 5, 2000, "(max_fraction)", id="then the fraction"
        ),
        pytest.param({"max_fraction": 0.01}, 0, 0, None, id="nothing read"),
    ],
)
def test_when_an_error_budget_is_exceeded(
    budget: dict[str, Any], dead_lettered: int, read: int, words: str | None
) -> None:
    """Count and fraction, at and beside their edges, and what is said."""
    said = ErrorBudget(**budget).exceeded(Spent(dead_lettered=dead_lettered, read=read))

    assert (said is None) == (words is None)
    assert words is None or (said is not None and words in said)


@pytest.mark.parametrize(
    ("budget", "classes", "words"),
    [
        pytest.param({"max_per_class": {"record": 5}}, {"record": 5}, None, id="five of five"),
        pytest.param(
            {"max_per_class": {"record": 5}},
            {"record": 6},
            "6 dead letters of class record, 5 allowed (max_per_class)",
            id="the sixth fails",
        ),
        pytest.param(
            {"max_per_class": {"record": 5, "size": 0}},
            {"record": 1, "size": 1},
            "1 dead letters of class size, 0 allowed (max_per_class)",
            id="one class may have none",
        ),
        pytest.param(
            {"max_per_class": {"record": 5}},
            {"record": 3, "permanent": 2},
            "2 dead letters of other classes, 0 allowed (max_per_class)",
            id="what is not named has no room of its own",
        ),
        pytest.param(
            {"max_per_class": {"size": 0}, "max_dead_letters": 4},
            {"record": 4},
            None,
            id="what is not named has the whole budget",
        ),
        pytest.param(
            {"max_per_class": {"record": 5}, "max_dead_letters": 7},
            {"record": 5, "permanent": 3},
            "8 dead letters, 7 allowed (max_dead_letters)",
            id="and all of them together too",
        ),
        pytest.param(
            {"max_per_class": {"size": 1}, "max_fraction": 0.5},
            {"record": 50},
            None,
            id="beside a fraction",
        ),
        pytest.param(
            {"max_per_class": {"size": 1}, "max_fraction": 0.5, "min_sample": 1},
            {"record": 51},
            "51 of 100 records (51.00%), 50.00% allowed (max_fraction)",
            id="the fraction of all of them",
        ),
        pytest.param(
            {"max_per_class": {"size": 5}},
            {"record": 1},
            "1 dead letters of other classes, 0 allowed (max_per_class)",
            id="what is named did not come",
        ),
        pytest.param(
            {"max_per_class": {}},
            {"record": 1},
            "1 dead letters, 0 allowed (max_dead_letters)",
            id="an empty mapping",
        ),
    ],
)
def test_when_a_budget_by_class_is_exceeded(
    budget: dict[str, Any], classes: dict[str, int], words: str | None
) -> None:
    """Each class has its own limit, besides those of all of them together."""
    spent = Spent(dead_lettered=sum(classes.values()), read=100, classes=classes)

    said = ErrorBudget(**budget).exceeded(spent)

    assert (said is None) == (words is None)
    assert words is None or (said is not None and words in said)


@pytest.mark.parametrize(
    ("budget", "classes", "used"),
    [
        ({}, {}, 0.0),
        ({"max_dead_letters": 10}, {"record": 4}, 0.4),
        ({"max_dead_letters": 0}, {}, 0.0),
        ({"max_fraction": 0.5, "min_sample": 100}, {"record": 20}, 0.4),
        ({"max_fraction": 0.5, "min_sample": 101}, {"record": 20}, 0.0),
        (
            {"max_dead_letters": 100, "max_per_class": {"size": 4, "record": 80}},
            {"size": 3, "record": 1},
            0.75,
        ),
    ],
)
def test_how_much_of_a_budget_is_used(budget: dict[str, Any], classes: dict[str, int], used: float) -> None:
    """The limit that is nearest to be exceeded decides."""
    spent = Spent(dead_lettered=sum(classes.values()), read=100, classes=classes)

    assert ErrorBudget(**budget).used(spent) == pytest.approx(used)


def test_a_budget_by_class_is_a_value_like_any_other() -> None:
    """It can be a key, says what it holds, and is told to the UI as plain JSON."""
    budget = ErrorBudget(max_per_class={"record": 100, "size": 0})

    assert hash(budget) == hash(ErrorBudget(max_per_class={"record": 100, "size": 0}))
    assert budget != ErrorBudget(max_per_class={"record": 100})
    assert budget.serialize()["max_per_class"] == {"record": 100, "size": 0}
    assert "max_per_class={'record': 100, 'size': 0}" in repr(budget)


def test_the_classes_of_a_budget_are_those_of_the_error_tables() -> None:
    """What docs/errors.md names can be limited, and nothing else."""
    assert set(ERROR_CLASSES) == set(error_tables.CLASSES.values())


@pytest.mark.parametrize(
    ("budget", "allows"),
    [
        (ErrorBudget(), False),
        (ErrorBudget(max_dead_letters=0), False),
        (ErrorBudget(max_dead_letters=1), True),
        (ErrorBudget(max_fraction=0.1), True),
        (ErrorBudget(max_per_class={"record": 1, "size": 0}), True),
        (ErrorBudget(max_per_class={"size": 0}), False),
        (ErrorBudget(max_per_class={}), False),
        (ErrorBudget(max_dead_letters=0, max_per_class={"record": 1}), False),
        (ErrorBudget(max_dead_letters=0, max_fraction=0.1), True),
    ],
)
def test_whether_a_budget_allows_any(budget: ErrorBudget, *, allows: bool) -> None:
    """Then there must be a place to keep what is given up."""
    assert budget.allows_any is allows
