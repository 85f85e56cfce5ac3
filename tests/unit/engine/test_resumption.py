"""What a new leg does with the checkpoint that it finds: the table of DESIGN.md §6, row by row."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_batchkit.engine.checkpoint import Budget, Checkpoint, Counts
from airflow_batchkit.engine.exceptions import CannotResumeError, ErrorBudgetExceededError
from airflow_batchkit.engine.job import RunIdentity
from airflow_batchkit.engine.resumption import (
    compare_fingerprints,
    decide,
    generation_of,
    part_fingerprints,
)

NOW = 1_767_225_600.0
DAY = 86_400.0


def stored(**changes: Any) -> Checkpoint:
    """Make a checkpoint of an unfinished real run, saved an hour ago."""
    settings: dict[str, Any] = {
        "run": "run-1",
        "clear_marker": "1",
        "token": "t" * 16,
        "generation": "12345678",
        "started_at": NOW - 7200,
        "saved_at": NOW - 3600,
        "counts": Counts(read=1234),
        "legs": 3,
        **changes,
    }
    return Checkpoint(**settings)


def identity(**changes: Any) -> RunIdentity:
    """Make the identity of a retry of the stored run."""
    return RunIdentity(**{"run": "run-1", "clear_marker": "1", **changes})


@pytest.mark.parametrize(
    ("checkpoint", "asked", "action", "words"),
    [
        pytest.param({"alias": "run-0"}, {"run": "run-0"}, "resume", "resumes", id="by its second name"),
        pytest.param({"alias": "run-0"}, {"run": "run-9"}, "begin", "another run", id="by neither name"),
        pytest.param(
            {"alias": "", "job": "copy a b", "clear_marker": ""},
            {"run": "run-9", "when_cleared": "restart"},
            "resume",
            "of the run run-1 that 'copy a b' began",
            id="a copy's run goes on by another name",
        ),
        pytest.param(
            {"alias": "", "status": "completed"},
            {"run": "run-9"},
            "begin",
            "another run",
            id="copy completed",
        ),
        pytest.param(
            {"alias": "run-9", "status": "completed"},
            {"run": "run-9"},
            "done",
            "complete",
            id="taken over, done",
        ),
        pytest.param(None, {}, "begin", "no checkpoint", id="nothing stored"),
        pytest.param(None, {"restart": True}, "begin", "no checkpoint", id="nothing stored, restart"),
        pytest.param({}, {}, "resume", "after 1,234 records (leg 4)", id="retry"),
        pytest.param({"status": "failed"}, {}, "resume", "resumes", id="failed, retried"),
        pytest.param({}, {"clear_marker": "2"}, "resume", "resumes", id="cleared"),
        pytest.param({"status": "failed"}, {"clear_marker": "2"}, "resume", "resumes", id="failed, cleared"),
        pytest.param(
            {},
            {"clear_marker": "2", "when_cleared": "restart"},
            "begin",
            "when_cleared='restart'",
            id="restarts",
        ),
        pytest.param({}, {"when_cleared": "restart"}, "resume", "resumes", id="retry, when_cleared=restart"),
        pytest.param(
            {}, {"clear_marker": "2", "restart": True}, "begin", "restart was asked", id="restart asked"
        ),
        pytest.param({}, {"restart": True}, "resume", "resumes", id="retry of a run asked to restart"),
        pytest.param({}, {"run": "run-2"}, "begin", "of another run (run-1)", id="another run"),
        pytest.param({"status": "completed"}, {}, "done", "complete already", id="completed, retried"),
        pytest.param(
            {"status": "completed"}, {"clear_marker": "2"}, "begin", "begins anew", id="completed, cleared"
        ),
        pytest.param(
            {"status": "completed", "saved_at": 0.0}, {}, "done", "complete already", id="completed long ago"
        ),
        pytest.param(
            {"status": "completed"},
            {"run": "run-2"},
            "begin",
            "of another run",
            id="another run's completion is not this run's",
        ),
        pytest.param(
            {"mode": "partial", "status": "completed"}, {"restart": True}, "done", "complete", id="no clear"
        ),
        pytest.param(
            {"saved_at": NOW - 8 * DAY, "clear_marker": "0"},
            {"when_cleared": "restart"},
            "begin",
            "begins anew",
            id="too old, but restarted",
        ),
        pytest.param({"saved_at": NOW + DAY}, {}, "resume", "resumes", id="a clock that jumped back"),
    ],
)
def test_what_a_leg_does(
    checkpoint: dict[str, Any] | None, asked: dict[str, Any], action: str, words: str
) -> None:
    """Each row: what is stored, what is asked, what is done, and the line that says so."""
    found = None if checkpoint is None else stored(**checkpoint)
    decision = decide(found, identity(**asked), mode="real", now=NOW)

    assert decision.action == action
    assert words in decision.reason
    assert "\n" not in decision.reason


@pytest.mark.parametrize(
    ("checkpoint", "mode", "words"),
    [
        ({"mode": "local"}, "real", "of a local run, this is a real run"),
        ({"mode": "real"}, "partial", "of a real run, this is a partial run"),
        ({"saved_at": NOW - 8 * DAY}, "real", "8 days old, at most 7 are allowed"),
    ],
)
def test_what_does_not_fit_is_refused(checkpoint: dict[str, Any], mode: str, words: str) -> None:
    """Another mode, or too old: refused in one line that says how to begin anew."""
    with pytest.raises(CannotResumeError, match=words) as caught:
        decide(stored(**checkpoint), identity(), mode=mode, now=NOW)

    assert "restart" in str(caught.value)


def test_the_allowed_age_is_a_setting() -> None:
    """A checkpoint is as old as its last save, not as its run."""
    old = stored(saved_at=NOW - 2 * DAY, started_at=NOW - 30 * DAY)

    assert decide(old, identity(), mode="real", now=NOW).action == "resume"
    with pytest.raises(CannotResumeError, match="2 days old, at most 1"):
        decide(old, identity(max_checkpoint_age=timedelta(days=1)), mode="real", now=NOW)


def test_an_exceeded_budget_fails_at_once_until_a_person_clears() -> None:
    """Airflow's own retries never fill the budget; a clear opens a new period."""
    exceeded = stored(status="failed", budget=Budget(exceeded="11 dead letters, 10 allowed"))

    with pytest.raises(ErrorBudgetExceededError, match="11 dead letters, 10 allowed; a clear"):
        decide(exceeded, identity(), mode="real", now=NOW)
    decision = decide(exceeded, identity(clear_marker="2"), mode="real", now=NOW)
    assert (decision.action, decision.new_budget_period) == ("resume", True)


def test_a_retry_opens_no_budget_period() -> None:
    """Only another clear marker does."""
    assert not decide(stored(), identity(), mode="real", now=NOW).new_budget_period


def test_a_completed_part_answers_only_for_itself() -> None:
    """Completed from one start_at says nothing of another."""
    done = stored(mode="partial", status="completed", fingerprints=part_fingerprints("2026-01-01"))

    def action(start_at: str | None) -> str:
        return decide(done, identity(), mode="partial", now=NOW, start_at=start_at).action

    assert [action("2026-01-01"), action("2026-02-01"), action(None)] == ["done", "begin", "begin"]


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        ({"query": "a"}, {"query": "b"}, "query"),
        ({"query": "a", "source": "s"}, {"query": "b", "source": "t"}, "query, source"),
        ({"query": "a", "schema": "s"}, {"query": "a"}, "schema"),
        ({"query": "a"}, {"query": "a", "format": "gzip"}, "format"),
    ],
)
def test_fingerprints_that_differ_are_named(before: dict[str, str], now: dict[str, str], named: str) -> None:
    """A refusal names the keys, sorted, and never the values."""
    with pytest.raises(CannotResumeError, match=f"changed since the checkpoint: {named};"):
        compare_fingerprints(before, now)


def test_equal_fingerprints_pass() -> None:
    """In whatever order they come."""
    compare_fingerprints({"a": "1", "b": "2"}, {"b": "2", "a": "1"})


def test_a_generation_is_named_by_run_clear_and_fingerprints() -> None:
    """The same in every leg of a run, another after a clear of a completed run or a changed job."""
    name = generation_of("run-1", "1", {"query": "a", "source": "b"})

    assert name == generation_of("run-1", "1", {"source": "b", "query": "a"})
    assert len(name) == 8
    assert int(name, 16) >= 0
    others = {
        generation_of("run-2", "1", {"query": "a", "source": "b"}),
        generation_of("run-1", "2", {"query": "a", "source": "b"}),
        generation_of("run-1", "1", {"query": "b", "source": "b"}),
    }
    assert len(others | {name}) == 4
