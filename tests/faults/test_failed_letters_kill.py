"""Kill anywhere while a run fails and shows its dead letters, then clear it: they are exact in the end."""

from __future__ import annotations

import functools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.engine.exceptions import ErrorBudgetExceededError, PermanentError, RecordError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget
from airflow_batchkit.stores.file import FileStore
from airflow_batchkit.testing.doubles import NoConnections, made_up_records
from tests.support.fault_table import FULL
from tests.support.legs import PATIENT, QUIET, Death, HurryingClock, KilledError, World, at

SHAPES = [
    pytest.param("records", True, 2, id="records"),
    pytest.param("records", False, 1, id="one-by-one"),
    pytest.param("windows", True, 2, id="windows"),
]


def sevens_fail(document: dict[str, Any]) -> dict[str, Any]:
    """Give up every seventh record."""
    if document["id"] % 7 == 0:
        raise RecordError("divisible by seven")
    return document


def world_of(style: str, *, idempotent: bool, readers: int) -> World:
    """Make a run that exceeds its budget a few times, and fails once for another reason."""
    world = World(
        {"a": made_up_records(30), "b": made_up_records(30, prefix="b-", first=100)},
        source={"style": style, "window_records": 8},
        sink={"idempotent": idempotent},
        clock=HurryingClock(),
        timeouts=PATIENT,
        readers=readers,
        transform=sevens_fail,
        batch=BatchPolicy(max_records=5),
        error_budget=ErrorBudget(max_dead_letters=2, max_per_class={"record": 2}),
    )
    world.target.rejects = {"5", "b-110"}
    world.target.script.fail("write", PermanentError("the index is gone"), at=5)
    return world


def clear_until_complete(world: World, *, killed: bool = False) -> list[list[str]]:
    """Run it, and clear it whenever it has failed for good.

    :param killed: the first leg is the retry of one that was killed, maybe before it had shown its letters.
    :returns: which letters were shown after each failure.
    """
    job = world.job(dead_letters=world.letters)
    shown: list[list[str]] = []
    # The retry of a leg that was killed comes with the marker of that leg.
    first = int(world.checkpoint.clear_marker) if world.checkpoint is not None else 0
    for clear in range(first, first + 20):
        try:
            world.run_to_end(job, identity=at(str(clear)))
        except (ErrorBudgetExceededError, PermanentError):
            shown.append(sorted(letter.id for letter in world.box.revealed))
            if clear > first or not killed:
                assert len(shown[-1]) == world.stood.counts.dead_lettered
            continue
        return shown
    raise AssertionError("not complete after 20 clears")


def end(world: World) -> tuple[Any, ...]:
    """Return what the run leaves behind."""
    assert world.stood.status == "completed"
    assert world.box.staged == {}, "staged dead letters were left over"
    assert world.box.revealed == [], "letters are still shown as those of a failed run"
    assert len(world.target.history) == 1, "published more than once"
    stood = world.stood
    return (
        world.ids,
        sorted(letter.id for letter in world.box.settled),
        stood.counts.dead_lettered,
        stood.classes,
        stood.errors,
    )


@functools.cache
def uninterrupted(style: str, *, idempotent: bool, readers: int) -> tuple[tuple[Any, ...], list[str]]:
    """Run once without a kill: what is to be left, and the moments to kill at."""
    world = world_of(style, idempotent=idempotent, readers=readers)
    with Death().lurking() as death:
        shown = clear_until_complete(world)
    assert len(shown) >= 3
    return end(world), death.moments


@pytest.mark.parametrize(("style", "idempotent", "readers"), SHAPES)
def test_killed_at_any_effect_of_a_failure_the_letters_are_exact(
    style: str, *, idempotent: bool, readers: int
) -> None:
    """Failing, showing the letters, going on when cleared: killed anywhere, none is lost or doubled."""
    expected, moments = uninterrupted(style, idempotent=idempotent, readers=readers)
    assert moments.count("before dead_letters.reveal") >= 3
    for moment in range(1, len(moments) + 1):
        world = world_of(style, idempotent=idempotent, readers=readers)
        with Death(moment).lurking() as death:
            try:
                clear_until_complete(world)
            except KilledError:
                death.bury()
            clear_until_complete(world, killed=True)
        assert end(world) == expected, f"killed at moment {moment} ({moments[moment - 1]})"


class FileRun:
    """A run of orders into a folder, whose letters lie in another one.

    :param folder: for output, letters and checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self._store = FileStore(folder / "checkpoints")
        self._place = f"file://{folder}/letters"
        self._clear = 0
        self._job = Job(
            name="dag.export",
            source=IterableSource(records=orders, key="id"),
            sink=ObjectStorageSink(url=f"file://{folder}/out"),
            transform=sevens_fail,
            batch=BatchPolicy(max_records=4),
            error_budget=ErrorBudget(max_dead_letters=2),
            dead_letters=DeadLetters(self._place),
        )
        self.folder = folder

    def clear_until_complete(self) -> list[int]:
        """Run it, and clear it whenever it has failed for good.

        :returns: how many letters were shown after each failure.
        """
        shown = []
        while self._clear < 10:
            try:
                Pipeline(
                    self._job,
                    identity=RunIdentity(run="run-1", clear_marker=str(self._clear)),
                    store=self._store,
                    key="run-1",
                    connections=NoConnections(),
                    log=QUIET,
                ).run()
            except ErrorBudgetExceededError:
                shown.append(len(self.letters(complete=False)))
                self._clear += 1
                continue
            return shown
        raise AssertionError("not complete after 10 clears")

    def letters(self, *, complete: bool) -> list[int]:
        """Return the numbers of the letters that readers see; none where they are not marked as asked for."""
        folder = self.folder / "letters" / "dag.export" / "run-1"
        listed = folder / "letters.json"
        if not listed.exists():
            return []
        head = json.loads(listed.read_text())
        if head["complete"] is not complete:
            return []
        return [
            json.loads(line)["record"]["id"]
            for part in head["parts"]
            for line in (folder / part["key"]).read_text().splitlines()
        ]

    def left(self) -> tuple[Any, ...]:
        """Return what the run leaves behind: its counts, its letters, and what lies at their place."""
        manifest = json.loads((self.folder / "out" / "manifest.json").read_text())
        names = [
            re.sub(r"-[0-9a-f]{8}\.ndjson", "", str(path.relative_to(self.folder)))  # the folder is in it
            for path in (self.folder / "letters").rglob("*")
            if path.is_file() and path.name != ".lock"
        ]
        counts = manifest["counts"]
        return (
            [counts[name] for name in ("read", "written", "dead_lettered")],
            manifest["dead_letters"]["count"],
            self.letters(complete=True),
            sorted(names),
        )


def orders() -> list[dict[str, Any]]:
    """Make up orders."""
    return [{"id": number} for number in range(1, 51)]


def test_killed_at_any_effect_of_a_failure_the_letters_in_a_folder_are_exact(tmp_path: Path) -> None:
    """The same with objects: what is shown after a failure is replaced in one step, whatever was cut off."""
    reference = FileRun(tmp_path / "0")
    with Death().lurking() as death:
        shown = reference.clear_until_complete()
    assert all(letters >= 3 for letters in shown)  # more than are allowed, by what was in flight
    expected, moments = reference.left(), death.moments
    assert expected[:3] == ([50, 43, 7], 7, [7, 14, 21, 28, 35, 42, 49])
    assert [name.rpartition("/")[2] for name in expected[3]][-1] == "letters.json"
    assert moments.count("before dead_letters.switch") == len(shown) + 1 >= 2
    for moment in range(1, len(moments) + 1, 1 if FULL else 3):
        run = FileRun(tmp_path / str(moment))
        with Death(moment).lurking() as death:
            try:
                run.clear_until_complete()
            except KilledError:
                death.bury()
            run.clear_until_complete()
        assert run.left() == expected, f"killed at moment {moment} ({moments[moment - 1]})"
        shutil.rmtree(run.folder)
