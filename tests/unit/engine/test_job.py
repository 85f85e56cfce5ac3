"""The job: settings that contradict each other are refused before anything is opened."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.policies import ErrorBudget
from airflow_batchkit.testing.doubles import MemoryDeadLetters, MemorySink, MemorySource


def job(**changes: Any) -> Job:
    """Make a job on doubles."""
    return Job(**{"name": "job", "source": MemorySource(partitions={}), "sink": MemorySink(), **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"error_budget": ErrorBudget(max_dead_letters=1)}, "no place to keep them: set dead_letters="),
        ({"error_budget": ErrorBudget(max_fraction=0.5)}, "no place to keep them"),
        ({"readers": 0}, "readers=0: must be 1 to 8"),
        ({"readers": 9}, "readers=9: must be 1 to 8"),
        ({"max_batches": 0}, "max_batches=0: must be 1 or more"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], words: str) -> None:
    """One line that says what contradicts what."""
    with pytest.raises(UsageError, match=words):
        job(**changes)


def test_a_budget_with_a_place_for_dead_letters_is_fine() -> None:
    """And none of the two is fine too."""
    job(error_budget=ErrorBudget(max_dead_letters=1), dead_letters=MemoryDeadLetters())
    job()


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({}, "real"),
        ({"start_at": "5"}, "partial"),
        ({"max_batches": 1}, "partial"),
        ({"local": True}, "local"),
        ({"local": True, "start_at": "5"}, "local"),
    ],
)
def test_the_mode_follows_from_the_settings(changes: dict[str, Any], mode: str) -> None:
    """LOCAL wins: it writes nothing, whatever part it reads."""
    assert job(**changes).mode == mode


def test_an_identity_knows_two_words() -> None:
    """when_cleared is resume or restart."""
    assert RunIdentity(run="r").when_cleared == "resume"
    with pytest.raises(UsageError, match="when_cleared='resum': must be 'resume' or 'restart'"):
        RunIdentity(run="r", when_cleared="resum")
