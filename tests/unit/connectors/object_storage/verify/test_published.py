"""A run that reads back what it published fails where that is damaged, also when it was killed in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import pytest

from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.engine.exceptions import PermanentError, StoppedError
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.testing.doubles import MemoryStore
from tests.support.object_storage import Place, make_place
from tests.support.published import Published, ten

if TYPE_CHECKING:
    from airflow_batchkit.engine.report import Report


class KilledError(BaseException):
    """Ends a leg as a kill does: nothing of ours catches it."""


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty folder."""
    return make_place("file", request)


class Runs:
    """Legs of one run that verifies what it publishes."""

    def __init__(self, place: Place, *, local: bool = False) -> None:
        self._place = place
        self._store = MemoryStore()
        self._local = local

    def leg(self, stop: Stop | None = None) -> Report:
        """Run one leg."""
        job = Job(
            name="job",
            source=IterableSource(records=ten, key="id"),
            sink=ObjectStorageSink(url=self._place.url, verify_output=True),
            batch=BatchPolicy(max_records=4),
            local=self._local,
        )
        return Pipeline(
            job,
            identity=RunIdentity(run="run-1"),
            store=self._store,
            key="job",
            connections=self._place.connections,
            stop=stop,
        ).run()


@contextmanager
def damaging(place: Place, *, at: str = "sink.success", kill: bool = False) -> Iterator[None]:
    """Drop a line of the first part, or kill the leg, right after an effect."""

    def probe(name: str, when: Literal["before", "after"]) -> None:
        if (name, when) != (at, "after"):
            return
        if kill:
            raise KilledError
        output = Published(place)
        output.rewrite(output.first, lambda lines: lines[1:])

    with probing(probe):
        yield


def test_report_says_that_it_was_verified(place: Place) -> None:
    """A whole output is reported as verified, and what was staged is removed."""
    report = Runs(place).leg()

    assert report.published["verified"] is True
    assert [name for name in place.names() if name.startswith("_batchkit/run")] == []


def test_damage_fails_the_run_by_name(place: Place) -> None:
    """A line that is missing fails the run, which says where, and fails it again when it is tried again."""
    runs = Runs(place)
    message = r"is damaged: part-iterable-00001-\w+\.ndjson\.gz has 3 lines, the manifest says 4"

    with damaging(place), pytest.raises(PermanentError, match=message):
        runs.leg()
    with pytest.raises(PermanentError, match=message):
        runs.leg()


def test_a_kill_before_the_reading_does_not_skip_it(place: Place) -> None:
    """Killed after the switch, the next leg finds the output visible, and still reads it back."""
    runs = Runs(place)
    with damaging(place, kill=True), pytest.raises(KilledError):
        runs.leg()
    output = Published(place)
    output.rewrite(output.first, lambda lines: lines[1:])

    with pytest.raises(PermanentError, match="has 3 lines"):
        runs.leg()


def test_a_stop_ends_the_reading(place: Place) -> None:
    """A stop that is asked while everything is read back ends the leg; the next one reads it all again."""
    runs, stop = Runs(place), Stop()

    def probe(name: str, when: Literal["before", "after"]) -> None:
        if (name, when) == ("sink.success", "after"):
            stop.ask("deploy")

    with probing(probe), pytest.raises(StoppedError, match="deploy"):
        runs.leg(stop)
    assert runs.leg().published["verified"] is True


def test_local_mode_has_nothing_to_verify(place: Place) -> None:
    """In LOCAL mode nothing is written, so nothing is read back."""
    report = Runs(place, local=True).leg()

    assert (report.status, report.published) == ("skipped", {})
