"""How a leg begins and ends: what is told, what is closed, what is in the log."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import (
    PermanentError,
    SupersededError,
    TransientError,
    UsageError,
)
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.testing.doubles import NoConnections, made_up_records
from tests.support.legs import KEY, RUN, Recorder, World

ALL = [record.id for record in made_up_records(45)]


def test_a_source_that_cannot_be_opened_begins_nothing() -> None:
    """Nothing is claimed; the listeners hear of it; the error says what to change."""
    world = World()
    world.log.script.fail("open", UsageError("no index 'ordrs'"))
    recorder = Recorder()

    with pytest.raises(UsageError, match="ordrs"):
        world.run(listeners=[recorder])

    assert world.checkpoint is None
    assert world.target.owner is None
    assert recorder.named("start") == []
    assert [type(error) for error in recorder.named("failure")] == [UsageError]


class BrokenSinkError(UsageError):
    """No bucket."""


@pytest.mark.parametrize("part", ["sink", "dead_letters"])
def test_what_is_open_already_is_closed_when_the_next_cannot_be_opened(part: str) -> None:
    """A sink or a place for dead letters that is not there leaves no source open on the server."""
    world = World()

    class Broken:
        idempotent = True
        one_write_per_partition = False
        default_batch_bytes = 1
        default_batch_records = None

        def open(self, context: object) -> None:  # noqa: ARG002  # as the protocol says
            raise BrokenSinkError("no such bucket")

        def serialize(self) -> dict[str, Any]:
            return {}

    with pytest.raises(BrokenSinkError):
        world.run(world.job(**{part: Broken()}))

    assert world.log.closes == 1


def test_the_start_tells_every_setting_before_any_record_is_read() -> None:
    """Job, run, leg, mode, place of the checkpoint, settings, source, sink and environment."""
    recorder = Recorder()
    World().run(listeners=[recorder], environment={"airflow": "3.3.2"})

    facts = recorder.named("start")[0]
    assert recorder.events[0][0] in {"saved", "start"}
    assert (facts["job"], facts["run"], facts["leg"], facts["mode"]) == ("job", "run-1", 1, "real")
    assert facts["total"] == "45"
    assert facts["checkpoint"] == "memory"
    assert facts["environment"] == {"airflow": "3.3.2"}
    assert facts["settings"]["batch"]["max_records"] == 10
    assert facts["source"] == {"source": "memory", "partitions": 1}


def test_a_publication_that_is_tried_again_is_told() -> None:
    """Retries after the loop reach the listeners as those in it do."""
    world = World()
    world.target.script.fail("publish", TransientError("503"), times=2)
    recorder = Recorder()

    world.run(listeners=[recorder])

    assert [what for what, _, _ in recorder.named("retry")] == ["publish", "publish"]
    assert len(world.target.history) == 1


def test_a_last_save_that_fails_does_not_hide_why_the_leg_ends(caplog: pytest.LogCaptureFixture) -> None:
    """The reason is raised; the failure of the save is in the log."""
    world = World()
    world.target.script.fail("write", PermanentError("403"))
    world.store.script.fail("save", TransientError("503"), at=2, times=99)

    with caplog.at_level(logging.ERROR), pytest.raises(PermanentError, match="403"):
        world.run()

    assert "the last save of this leg failed" in caplog.text


def test_a_leg_superseded_at_its_last_save_says_so() -> None:
    """It failed, but a newer leg took over meanwhile: that is what counts."""
    world = World()
    world.target.script.fail("write", PermanentError("403"))
    world.store.script.fail("load", SupersededError("404 from the state store"), at=3)

    with pytest.raises(SupersededError):
        world.run()
    assert world.target.owner is not None


@pytest.mark.parametrize(("error", "kept"), [(TransientError("503"), True), (PermanentError("403"), False)])
def test_a_place_for_dead_letters_that_cannot_be_prepared_begins_nothing(
    error: Exception, *, kept: bool
) -> None:
    """What may pass leaves the target to the next leg, which comes soon; what does not, sets it free."""
    world = World()
    world.box.script.fail("start", error)
    with pytest.raises(type(error), match=str(error)):
        world.run(world.job(dead_letters=world.letters))

    assert world.checkpoint is None
    assert (world.target.owner is not None) is kept


def test_the_run_needs_no_settings_of_the_pipeline() -> None:
    """Stop, listeners, clock and log have defaults."""
    world = World()
    Pipeline(world.job(), identity=RUN, store=world.store, key=KEY, connections=NoConnections()).run()

    assert world.ids == ALL
