"""A task instance has one name for its run in all tries, and a marker that only a clear changes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.job import RunIdentity
from airflow_batchkit.operators.identity import run_identity, run_name, shared_run_name
from tests.support.running_task import FakeTask


def test_identity_comes_from_the_task_instance() -> None:
    """Run, map index and ``max_tries`` make the identity; the try number does not."""
    task = FakeTask(dag_id="d", task_id="t", run_id="manual__1", map_index=3, max_tries=2, try_number=2)
    identity = run_identity(
        {"ti": task}, when_cleared="restart", restart=True, max_checkpoint_age=timedelta(days=3)
    )
    assert (identity.run, identity.clear_marker) == ("manual__1.map3", "2")
    assert (identity.when_cleared, identity.restart) == ("restart", True)
    assert identity.max_checkpoint_age == timedelta(days=3)
    assert identity.origin == {
        "dag_id": "d",
        "task_id": "t",
        "run_id": "manual__1",
        "map_index": 3,
        "try_number": 2,
    }


def test_unknown_words_are_refused() -> None:
    """A typo must not mean "resume"."""
    with pytest.raises(UsageError, match="when_cleared='restrat'"):
        run_identity(
            {"ti": FakeTask(dag_id="d", task_id="t", run_id="r")},
            when_cleared="restrat",
            restart=False,
            max_checkpoint_age=timedelta(days=7),
        )


def test_names_stay_readable() -> None:
    """The usual run ids can be recognised in object keys."""
    name = run_name("scheduled__2026-01-02T00:00:00+00:00")
    assert re.fullmatch(r"scheduled__2026-01-02T00_00_00_00_00-[0-9a-f]{8}", name)


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_names_are_safe_and_tell_runs_apart(first: str, second: str) -> None:
    """Whatever a run is called, its name is safe in an object key, and no other run has it."""
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,149}|-[0-9a-f]{8}", run_name(first))
    assert (run_name(first) == run_name(second)) is (first == second)


def shared(**context: Any) -> RunIdentity:
    """Return the identity of a task instance whose checkpoint the command line shares."""
    return run_identity(
        {"ti": FakeTask(dag_id="d", task_id="t", run_id="manual__1", max_tries=1), **context},
        when_cleared="resume",
        restart=False,
        max_checkpoint_age=timedelta(days=7),
        shared=True,
    )


def test_a_shared_run_is_named_by_its_date() -> None:
    """Two zones' words for an instant are one run; another instant and another conf are others."""
    date = datetime(2026, 11, 22, 1, tzinfo=timezone(timedelta(hours=1)))
    plain = shared(logical_date=date)
    assert (plain.run, plain.clear_marker, plain.holder) == ("20261122T000000Z", "1", "Airflow")
    names = {
        shared(logical_date=date.astimezone(UTC), dag_run=SimpleNamespace(conf={})).run,
        shared(logical_date=date + timedelta(microseconds=5)).run,
        shared(logical_date=date, dag_run=SimpleNamespace(conf={"region": "eu"})).run,
        shared(logical_date=date, dag_run=SimpleNamespace(conf={"region": "us"})).run,
    }
    assert len(names) == 4
    assert plain.run in names
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)
    assert shared_run_name(date, conf=None, map_index=3) == "20261122T000000Z.map3"


def test_a_shared_run_without_a_date_keeps_its_id() -> None:
    """The command line cannot name such a run, and begins one of its own."""
    assert shared(logical_date=None).run == "manual__1"
