"""The errors: one tree, one line each, and they survive pickling."""

from __future__ import annotations

import pickle
import re
from typing import Any

import pytest

from airflow_batchkit.engine import exceptions
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    PermanentError,
    PushbackError,
    StoppedError,
    TargetHeldError,
    TransientError,
)


@pytest.mark.parametrize("name", exceptions.__all__)
def test_every_error_survives_pickling(name: str) -> None:
    """Airflow and multiprocessing send errors between processes."""
    error = getattr(exceptions, name)("what happened")
    found = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes

    assert isinstance(error, BatchkitError)
    assert (type(found), str(found), found.args) == (type(error), "what happened", error.args)


@pytest.mark.parametrize("kind", [PushbackError, TargetHeldError])
def test_how_long_to_wait_is_part_of_an_error(kind: type[PushbackError | TargetHeldError]) -> None:
    """Through pickling too; the text stays one line."""
    found = pickle.loads(pickle.dumps(kind("busy", 12.5)))  # noqa: S301  # our own bytes

    assert (str(found), found.retry_after) == ("busy", 12.5)
    assert kind("busy").retry_after is None


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (0, 0.0),
        (86_400, 3600.0),
        (float("inf"), 3600.0),
        (10**400, 3600.0),
        (-1, None),
        (float("nan"), None),
        ("12", None),
    ],
)
def test_nobody_is_made_to_wait_for_ever(said: Any, seconds: float | None) -> None:
    """More than an hour is an hour, and nonsense is nothing: so a run comes back and asks again."""
    assert PushbackError("busy", said).retry_after == seconds


def test_a_stop_carries_its_reason() -> None:
    """And when to go on."""
    found = pickle.loads(pickle.dumps(StoppedError("deploy", 30.0)))  # noqa: S301  # our own bytes

    assert (str(found), found.reason, found.resume_after) == ("deploy", "deploy", 30.0)
    assert StoppedError("deploy").resume_after is None


def test_no_error_is_both_transient_and_permanent() -> None:
    """What the caller can do about it is never in doubt."""
    for name in exceptions.__all__:
        kind = getattr(exceptions, name)
        assert not (issubclass(kind, TransientError) and issubclass(kind, PermanentError))


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """The picture at the top of the module names every error once."""
    named = re.findall(r"\w+Error", (exceptions.__doc__ or "").split("Fields are")[0])

    assert sorted(named) == sorted(exceptions.__all__)
