"""What may happen to a folder that is written to: full, read-only, gone, changed; and to the clock."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from airflow_batchkit.engine.checkpoint import Checkpoint, decode
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    CannotResumeError,
    PermanentError,
    SupersededError,
    TargetHeldError,
)
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.stores.file import FileStore
from tests.support.fault_table import FULL
from tests.support.folder_runs import KEY, FolderRun, SmallDisk, ended, small_disk
from tests.support.legs import KilledError
from tests.support.targets import store_at

HOUR = 3600.0


class At:
    """Does something at one side effect, once.

    :param moment: ``"before sink.put 3"``; ``"before *  5"`` is the fifth of all.
    :param act: what.
    """

    def __init__(self, moment: str, act: Callable[[], object]) -> None:
        self.moments: list[str] = []
        self.acted = False
        self._when, self._name, number = moment.split()
        self._left = int(number)
        self._act = act

    def __call__(self, name: str, when: Literal["before", "after"]) -> None:
        """Be a probe."""
        self.moments.append(f"{when} {name}")
        if when != self._when or self._name not in {name, "*"}:
            return
        self._left -= 1
        if self._left == 0:
            self.acted = True
            self._act()


@pytest.fixture
def run(tmp_path: Path) -> FolderRun:
    """Give a run into an empty folder."""
    return FolderRun(tmp_path / "run")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Give a file system of 400 KiB of its own."""
    with small_disk(tmp_path / "small", pages=100) as disk:
        yield disk


@pytest.mark.fault("disk-full", at="file")
@pytest.mark.fault("letters-refused", at="file")
def test_disk_that_is_full_at_any_write(disk: SmallDisk) -> None:
    """Full at any write: the run ends by its name, and no file is torn; with room, it goes on to the end."""
    failed = 0
    for room in range(0, 60, 1 if FULL else 2):
        run = FolderRun(disk.folder / f"{room}")
        run.folder.mkdir()
        disk.leave(room)
        error = ended(run)
        run.check_nothing_torn()
        if error is not None:
            failed += 1
            assert "full" in str(error) or "No space left" in str(error), room
            assert "\n" not in str(error)
        disk.make_room()
        run.to_the_end()
        run.check()
        shutil.rmtree(run.folder)
        if error is None:
            break
    assert error is None
    assert failed > 10


@pytest.mark.fault("disk-full", at="file")
@pytest.mark.parametrize("moment", ["before sink.put 3", "before dead_letters.put 2", "before sink.switch 1"])
def test_disk_that_becomes_read_only(disk: SmallDisk, moment: str) -> None:
    """Read-only in the middle: the run fails and says so; writable again, it goes on."""
    run = FolderRun(disk.folder / "run")
    at = At(moment, lambda: disk.remount("ro"))
    with probing(at):
        error = ended(run)
    assert at.acted
    assert "the file system is read-only" in str(error)
    disk.remount("rw")
    run.check_nothing_torn()
    run.check_nothing_published()
    run.to_the_end()
    run.check()


@pytest.mark.fault("target-changed", at="file")
@pytest.mark.parametrize(
    "moment",
    ["before sink.put 3", "before dead_letters.put 2", "before sink.confirm 1", "before sink.copy 2"],
)
def test_folder_that_is_removed(run: FolderRun, moment: str) -> None:
    """Removed in the middle, it is never published as if whole; restarted, the run is."""
    at = At(moment, lambda: (run.folder / "out").rename(run.folder.with_name("gone")))
    with probing(at):
        error = ended(run)
    assert at.acted
    assert error is not None
    assert "\n" not in str(error)
    run.check_nothing_published()
    run.restart()
    run.check()


def staged(run: FolderRun) -> Path:
    """Return a part that lies in the staging."""
    return min((run.folder / "out" / "_batchkit").rglob("part-*"))


def cut_off(part: Path) -> None:
    """Leave the first half of it."""
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])


def grow(part: Path) -> None:
    """Write more behind it."""
    part.write_bytes(part.read_bytes() * 2)


def forget_what_it_was(part: Path) -> None:
    """Remove the sidecar that says what was written."""
    part.with_name(f".{part.name}.meta").unlink()


@pytest.mark.fault("target-changed", at="file")
@pytest.mark.parametrize("change", [Path.unlink, cut_off, grow, forget_what_it_was])
@pytest.mark.parametrize("moment", ["before sink.put 4", "before sink.confirm 1"])
def test_staged_part_that_somebody_changes(
    run: FolderRun, change: Callable[[Path], None], moment: str
) -> None:
    """It is never published: the run fails and says what became of it; restarted, it is whole."""
    at = At(moment, lambda: change(staged(run)))
    with probing(at):
        error = ended(run)
    assert at.acted
    assert isinstance(error, PermanentError)
    assert re.search("staged parts|bytes|metadata", str(error))
    run.check_nothing_published()
    run.restart()
    run.check()


@pytest.mark.fault("target-changed", at="file")
def test_staged_part_of_which_a_byte_changes(run: FolderRun) -> None:
    """With verify_output=True the run fails and names the part; a run that is restarted puts it right."""

    def change() -> None:
        content = bytearray(staged(run).read_bytes())
        content[len(content) // 2] ^= 1
        staged(run).write_bytes(content)

    with probing(At("before sink.put 4", change)):
        error = ended(run, verify_output=True)
    assert isinstance(error, PermanentError)
    assert "part-iterable-00001" in str(error)
    run.restart()
    run.check()


class ShiftedTime:
    """What the machine's clock says, which somebody may set.

    :param monkeypatch: sets it right again when the test ends.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shift = 0.0
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.shift)

    def set(self, shift: float) -> None:
        """Set the clock so many seconds forwards or back."""
        self.shift = shift


def names_without_generation(run: FolderRun) -> list[str]:
    """Return what lies at the target; the generation tells apart what is written to two folders."""
    return [re.sub(r"-[0-9a-f]{8}\.", ".", name) for name in run.place.names()]


@pytest.mark.fault("clock", at="file")
@pytest.mark.parametrize("shift", [HOUR, -HOUR, 30 * 24 * HOUR], ids=lambda shift: f"{shift / HOUR:+.0f} h")
def test_clock_that_jumps_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: float
) -> None:
    """Set in the middle of a leg, it changes nothing: no wait, no other name, no lost hold on the target."""
    clock = ShiftedTime(monkeypatch)
    count = At("before * 0", lambda: None)
    reference = FolderRun(tmp_path / "reference")
    with probing(count):
        reference.leg()
    moments = sum(moment.startswith("before") for moment in count.moments)
    for moment in range(1, moments + 1, 1 if FULL else 5):
        clock.set(0.0)
        run = FolderRun(tmp_path / f"{moment}")
        began = time.monotonic()
        with probing(At(f"before * {moment}", lambda: clock.set(shift))):
            assert run.leg().legs == 1
        assert time.monotonic() - began < 5
        run.check()
        assert names_without_generation(run) == names_without_generation(reference)


@pytest.mark.fault("clock", at="file")
@pytest.mark.parametrize("shift", [HOUR, -HOUR], ids=lambda shift: f"{shift / HOUR:+.0f} h")
def test_checkpoint_from_another_time(run: FolderRun, monkeypatch: pytest.MonkeyPatch, shift: float) -> None:
    """A leg on a machine whose clock is an hour off goes on at once, after the last save."""
    clock = ShiftedTime(monkeypatch)

    def die() -> None:
        raise KilledError

    with probing(At("before sink.put 3", die)), pytest.raises(KilledError):
        run.leg()
    clock.set(shift)
    assert run.leg().legs == 2
    run.check()


@pytest.mark.fault("clock", at="file")
@pytest.mark.fault("two-at-once", at="file")
def test_next_run_on_a_machine_whose_clock_is_wrong(run: FolderRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow, it waits for the first run's lease; fast, it takes over: the first one stops and says so."""
    clock = ShiftedTime(monkeypatch)
    other = FolderRun(run.folder, checkpoints=run.folder / "elsewhere", run="run-2")
    ends: list[BatchkitError | None] = []

    def other_runs() -> None:
        for shift in (0.0, -HOUR, HOUR):
            clock.set(shift)
            ends.append(ended(other))
        clock.set(0.0)

    with probing(At("before sink.put 3", other_runs)), pytest.raises(SupersededError) as superseded:
        run.leg()
    now, slow, fast = ends
    for held in (now, slow):
        assert isinstance(held, TargetHeldError)
        assert "is held by run run-1" in str(held)
    assert fast is None
    assert "owned by leg" in str(superseded.value)
    assert other.place.manifest()["run"] == "run-2"


def damages(whole: bytes) -> Iterator[bytes]:
    """Give the content with each bit changed, and cut off at each place; some of them unless FULL."""
    step = 1 if FULL else 7
    for bit in range(0, len(whole) * 8, step):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)
    for length in range(0, len(whole), step):
        yield whole[:length]


@pytest.mark.fault("checkpoint-damaged", at="file")
@pytest.mark.parametrize("beside", [False, True], ids=["in a folder", "beside the output"])
def test_stored_checkpoint_of_which_a_bit_changes(run: FolderRun, *, beside: bool) -> None:
    """Whichever bit flips, wherever it is cut off: refused by name, or what it was; the run begins anew."""
    if beside:
        run.store = store_at(run.place)
    with probing(At("before sink.put 4", fail)), pytest.raises(PermanentError, match="made up"):
        run.leg()
    (path,) = (run.folder / "out" / "_batchkit").glob("checkpoint-*") if beside else [checkpoint_file(run)]
    whole = path.read_bytes()
    wanted = decode(whole.decode())
    assert wanted.counts.read > 0
    for damaged in damages(whole):
        path.write_bytes(damaged)
        assert read_again(run) in (wanted, "refused"), damaged
    path.write_bytes(whole.replace(b'"read":', b'"read":1'))
    with pytest.raises(CannotResumeError, match="damaged"):
        run.leg()
    run.check_nothing_published()
    run.restart()
    run.check()


def read_again(run: FolderRun) -> Checkpoint | str:
    """Return the stored checkpoint as the next leg reads it, or that it is refused with a way out."""
    try:
        text = run.store.load(KEY)
        return "nothing" if text is None else decode(text)
    except CannotResumeError as error:
        return "refused" if "restart the run" in str(error) else str(error)


def fail() -> None:
    """Be something that fails for good."""
    raise PermanentError("made up")


def checkpoint_file(run: FolderRun) -> Path:
    """Return where a run that keeps its checkpoint in a folder has it."""
    return FileStore(run.folder / "checkpoints").path(KEY)
