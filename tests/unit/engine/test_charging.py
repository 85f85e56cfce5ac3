"""What is said of an error budget that is exceeded."""

from __future__ import annotations

from typing import Any

from airflow_batchkit.engine.charging import whereabouts, why_exceeded
from airflow_batchkit.engine.checkpoint import Budget, Checkpoint
from airflow_batchkit.testing.doubles import MemoryDeadLetters
from tests.support.legs import World


def stood(**changes: Any) -> Checkpoint:
    """Make the checkpoint of a run whose budget is exceeded."""
    settings: dict[str, Any] = {
        "run": "run-1",
        "token": "0" * 16,
        "generation": "0" * 8,
        "started_at": 0.0,
        "budget": Budget(exceeded="5 dead letters, 4 allowed (max_dead_letters)"),
        **changes,
    }
    return Checkpoint(**settings)


def test_ids_and_names_cannot_forge_a_line() -> None:
    """Both come from data: what is not printable is escaped."""
    said = why_exceeded(stood(errors={"Odd\nFAKE \x1b[31m": 5}, samples=["1\n2\x1b"]))

    assert said == (
        "error budget exceeded: 5 dead letters, 4 allowed (max_dead_letters); "
        r"most frequent: Odd\nFAKE \x1b[31m × 5 (such as record '1\n2\x1b')"
    )


def test_a_checkpoint_that_knows_less_says_less() -> None:
    """One of an older version has no samples, one that was made by hand no errors."""
    assert why_exceeded(stood(errors={"KeyError": 5})).endswith("; most frequent: KeyError × 5")
    assert why_exceeded(stood()) == "error budget exceeded: 5 dead letters, 4 allowed (max_dead_letters)"


def test_the_command_can_be_pasted() -> None:
    """A job may be named by two URLs, a run by what a shell would take apart."""
    world = World()
    opened = MemoryDeadLetters(box=world.box).open(None)  # type: ignore[arg-type]  # the double needs no context

    assert whereabouts(opened, stood(job="copy a b; rm", run="$(x)")) == (
        "the dead letters are at memory://letters; to see them: "
        "batchkit dead-letters show memory://letters --job 'copy a b; rm' --run '$(x)'"
    )
