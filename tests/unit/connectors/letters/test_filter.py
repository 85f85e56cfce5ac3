"""Which dead letters a filter means."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from airflow_batchkit.connectors.letters import LetterFilter
from airflow_batchkit.engine.dead_letters import DeadLetter
from airflow_batchkit.engine.exceptions import UsageError

LETTER = DeadLetter(
    job="j",
    run="r",
    token="t",
    partition="p",
    batch=1,
    id="17",
    stage="transform",
    error_class="record",
    error_type="KeyError",
    message="m",
    at=1_000_000_000.0,  # 2001-09-09T01:46:40Z
    record=msgspec.Raw(b"{}"),
)


@pytest.mark.parametrize(
    ("settings", "meant"),
    [
        ({}, True),
        ({"error_types": ["KeyError"], "ids": ["16", "17"]}, True),
        ({"error_types": ["ValueError"]}, False),
        ({"error_classes": ["permanent"]}, False),
        ({"stages": ["sink"]}, False),
        ({"ids": ["16"]}, False),
        ({"since": "2001-09-09T01:46:40"}, True),
        ({"since": "2001-09-09T03:46:40+02:00", "until": "2001-09-09T01:46:41"}, True),
        ({"until": "2001-09-09T01:46:40"}, False),
        ({"since": "2001-09-10"}, False),
    ],
)
def test_a_letter_must_fit_everything_that_is_given(settings: dict[str, Any], *, meant: bool) -> None:
    """Error type, class, stage, id and time all count; a time without a zone is UTC; the end is left out."""
    assert LetterFilter(**settings).matches(LETTER) is meant


@pytest.mark.parametrize(("replays", "meant"), [(0, True), (9, True), (10, False), (11, False)])
def test_a_letter_is_not_replayed_for_ever(replays: int, *, meant: bool) -> None:
    """After ten replays a letter is left alone, though it is still meant."""
    letter = msgspec.structs.replace(LETTER, replays=replays)

    assert LetterFilter().replayable(letter) is meant
    assert LetterFilter().matches(letter)


def test_what_the_source_could_not_read_is_not_replayed() -> None:
    """It can be looked at and purged; a replay has no record of it to hand to the transform."""
    letter = msgspec.structs.replace(LETTER, stage="source")

    assert LetterFilter(stages=["source"]).matches(letter)
    assert not LetterFilter().replayable(letter)


@pytest.mark.parametrize(
    "settings",
    [
        {"ids": "17"},
        {"error_types": "KeyError"},
        {"stages": ["somewhere"]},
        {"max_replays": 0},
        {"since": "yesterday"},
    ],
)
def test_what_can_match_nothing_is_refused(settings: dict[str, Any]) -> None:
    """A text instead of a list, an unknown stage and a time that is none are refused, by name."""
    with pytest.raises(UsageError, match=next(iter(settings))):
        LetterFilter(**settings)


def test_a_template_waits_until_it_is_rendered() -> None:
    """What is not rendered yet is not looked at."""
    LetterFilter(since="{{ ds }}")
