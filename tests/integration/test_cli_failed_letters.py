"""The dead letters of a run that failed, as a person who reads its last message finds them."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.engine.exceptions import ErrorBudgetExceededError, RecordError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget
from airflow_batchkit.stores.file import FileStore
from airflow_batchkit.testing.doubles import NoConnections
from tests.support.command_line import environment_of, run

if TYPE_CHECKING:
    from pathlib import Path


def orders() -> list[dict[str, Any]]:
    """Make up orders."""
    return [{"id": number} for number in range(1, 31)]


def even_fails(order: dict[str, Any]) -> dict[str, Any]:
    """Give up every other order."""
    if order["id"] % 2 == 0:
        raise RecordError("even")
    return order


def fail_or_end(folder: Path, *, clear_marker: str) -> None:
    """Run the job for one leg."""
    Pipeline(
        Job(
            name="shop.export orders",
            source=IterableSource(records=orders, key="id"),
            sink=ObjectStorageSink(url=f"file://{folder}/out"),
            transform=even_fails,
            batch=BatchPolicy(max_records=6),
            error_budget=ErrorBudget(max_dead_letters=9),
            dead_letters=DeadLetters(f"file://{folder}/letters"),
        ),
        identity=RunIdentity(run="run-1", clear_marker=clear_marker),
        store=FileStore(folder / "checkpoints"),
        key="run-1",
        connections=NoConnections(),
    ).run()


def test_the_command_in_the_message_shows_the_letters(tmp_path: Path) -> None:
    """Pasted as it stands it prints them; list tells that the run goes on with them; a replay is refused."""
    environment = environment_of(tmp_path / "state")
    place, out = f"file://{tmp_path}/letters", f"file://{tmp_path}/out"
    with pytest.raises(ErrorBudgetExceededError) as caught:
        fail_or_end(tmp_path, clear_marker="0")
    said = re.search(r"\d+ dead letters, 9 allowed .* to see them: batchkit (.*); a clear", str(caught.value))
    assert said is not None

    shown = run(*shlex.split(said[1]), environment=environment)
    assert shown.returncode == 0, shown.stderr
    ids = [int(number) for number in re.findall(r'"id": "(\d+)"', shown.stdout)]
    assert ids == list(range(2, 2 * len(ids) + 1, 2))
    assert len(ids) >= 10

    listed = run("dead-letters", "list", place, "--json", environment=environment)
    (row,) = map(json.loads, listed.stdout.splitlines())
    assert (row["letters"], row["complete"]) == (len(ids), False)
    refused = run("dead-letters", "replay", place, out, environment=environment)
    assert refused.returncode != 0
    assert "are of a run that failed: mend what failed and clear its task" in refused.stderr.splitlines()[-1]

    fail_or_end(tmp_path, clear_marker="1")

    listed = run("dead-letters", "list", place, "--json", environment=environment)
    (row,) = map(json.loads, listed.stdout.splitlines())
    assert (row["letters"], row["complete"]) == (15, True)
