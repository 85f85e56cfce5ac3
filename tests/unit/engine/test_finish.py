"""The end of a run: what is asked, and what is handed on, before the output becomes visible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.engine.exceptions import RecordError, SupersededError
from airflow_batchkit.engine.policies import ErrorBudget
from airflow_batchkit.testing.doubles import FakeClock
from airflow_batchkit.testing.doubles.sink import OpenMemorySink
from tests.support.legs import World

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_batchkit.engine.sink import Publication


def one_fails(document: dict[str, Any]) -> dict[str, Any]:
    """Give one record up."""
    if document["id"] == 7:
        raise RecordError("seven")
    return document


@pytest.fixture
def publications(monkeypatch: pytest.MonkeyPatch) -> list[Publication]:
    """Keep what the sink is given to publish."""
    given: list[Publication] = []
    publish = OpenMemorySink.publish

    def keep(sink: OpenMemorySink, publication: Publication) -> Mapping[str, Any]:
        given.append(publication)
        return publish(sink, publication)

    monkeypatch.setattr(OpenMemorySink, "publish", keep)
    return given


def test_the_target_is_asked_for_once_more_at_the_end() -> None:
    """A leg that lost its target since its last save settles and publishes nothing."""
    world = World(clock=FakeClock())
    world.target.script.fail("renew", SupersededError("leg b owns the target"))
    with pytest.raises(SupersededError, match="leg b"):
        world.run()
    assert sum(len(batch) for batch in world.target.staged.values()) == 45, "it was the end already"
    assert world.target.published is None


def test_the_sink_is_told_of_counts_and_of_what_was_given_up(publications: list[Publication]) -> None:
    """What a manifest says comes from here: counts, fingerprints, legs, start, and where the letters are."""
    world = World(clock=FakeClock(), error_budget=ErrorBudget(max_dead_letters=1))
    report = world.run(world.job(transform=one_fails, dead_letters=world.letters))

    [publication] = publications
    assert publication.counts["written"] == 44
    assert publication.counts["dead_lettered"] == 1
    assert publication.fingerprints == world.stood.fingerprints
    assert publication.notes["legs"] == 1
    assert publication.notes["started_at"] == world.stood.started_at
    assert publication.notes["dead_letters"] == report.dead_letters
    assert publication.notes["dead_letters"]["count"] == 1
    assert publication.stop_asked() is None


def test_publishing_counts_as_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report's active time has the publication in it; then the target is free for the next run."""
    clock = FakeClock()
    world = World(clock=clock)
    publish = OpenMemorySink.publish

    def slowly(sink: OpenMemorySink, publication: Publication) -> Mapping[str, Any]:
        clock.advance(30)
        return publish(sink, publication)

    monkeypatch.setattr(OpenMemorySink, "publish", slowly)
    assert world.run().active_seconds == 30
    assert world.target.owner is None
