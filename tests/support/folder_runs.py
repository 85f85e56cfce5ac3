"""A run from memory into a folder, leg after leg, with its checkpoint and its dead letters in files too."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.engine.checkpoint import CheckpointStore, decode
from airflow_batchkit.engine.exceptions import BatchkitError, StoppedError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget
from airflow_batchkit.stores.file import FileStore
from airflow_batchkit.testing.doubles import NoConnections
from tests.support.legs import QUICK
from tests.support.object_storage import Place, S3Connections
from tests.support.published import Published, orders, refuse_marked

if TYPE_CHECKING:
    from airflow_batchkit.engine.report import Report

RECORDS = 40
BATCH = 9
KEY = "run-1"
_LOG = logging.getLogger("tests.folder_runs")


def documents() -> list[Mapping[str, Any]]:
    """Return what is read; every seventh is refused by the transform."""
    return [{**order, "refuse": int(order["id"]) % 7 == 3} for order in orders(RECORDS)]


class FolderRun:
    """One run.

    :param folder: holds everything: ``out``, ``letters``, ``checkpoints``.
    :param checkpoints: another place for the checkpoints.
    :param run: name of the run.
    """

    def __init__(self, folder: Path, *, checkpoints: Path | None = None, run: str = "run-1") -> None:
        self.folder = folder
        self.place = Place(url=f"file://{folder}/out", connections=S3Connections(endpoint_url=""))
        self.store: CheckpointStore = FileStore(checkpoints or folder / "checkpoints")
        self.identity = RunIdentity(run=run)

    def job(self, **sink: Any) -> Job:
        """Return what is done; ``sink`` are more settings of the sink."""
        return Job(
            name="folder",
            source=IterableSource(records=documents, key="id"),
            sink=ObjectStorageSink(url=self.place.url, **sink),
            transform=refuse_marked,
            batch=BatchPolicy(max_records=BATCH),
            batch_retry=QUICK,
            error_budget=ErrorBudget(max_dead_letters=100),
            dead_letters=DeadLetters(f"file://{self.folder}/letters"),
        )

    def leg(self, **sink: Any) -> Report:
        """Run one leg."""
        return Pipeline(
            self.job(**sink),
            identity=self.identity,
            store=self.store,
            key=KEY,
            connections=NoConnections(),
            log=_LOG,
        ).run()

    def to_the_end(self, **sink: Any) -> Report:
        """Run leg after leg."""
        for _ in range(20):
            try:
                return self.leg(**sink)
            except StoppedError:
                continue
        raise AssertionError("not finished after 20 legs")

    def restart(self) -> Report:
        """Begin anew, as a person does who clears the task and asks for it."""
        marker = f"{self.identity.clear_marker}+"
        self.identity = replace(self.identity, clear_marker=marker, restart=True)
        return self.to_the_end()

    def check(self) -> None:
        """Compare output and dead letters with what was read, one by one; nothing else may lie there."""
        good = [each for each in documents() if not each["refuse"]]
        bad = {each["id"]: each for each in documents() if each["refuse"]}
        found = [json.loads(line) for line in self.place.lines()]
        assert found == [{"_id": each["id"], **each} for each in good]
        assert Published(self.place).problems() == {}
        parts = {part["key"] for part in self.place.manifest()["parts"]}
        names = {name for name in self.place.names() if not name.startswith("_batchkit/checkpoint-")}
        assert names == parts | {"_SUCCESS", "_batchkit/owner.json", "manifest.json"}
        letters = [
            json.loads(line)
            for path in sorted((self.folder / "letters").rglob("*.ndjson"))
            for line in path.read_text().splitlines()
        ]
        assert len(letters) == len(bad)
        assert {letter["id"]: letter["record"] for letter in letters} == bad
        counts = self.place.manifest()["counts"]
        wanted = {"read": RECORDS, "written": len(good), "dead_lettered_by_transform": len(bad)}
        assert {name: counts[name] for name in wanted} == wanted
        assert leftovers(self.folder) == []

    def check_nothing_published(self) -> None:
        """Nobody sees any of it."""
        out = self.folder / "out"
        assert not (out / "manifest.json").exists()
        assert not (out / "_SUCCESS").exists()

    def check_nothing_torn(self) -> None:
        """Every file that is there is whole: each staged part with its sidecar, each JSON, the checkpoint."""
        assert leftovers(self.folder) == []
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in {".json", ".meta"}:
                msgspec.json.decode(path.read_bytes())
            if "_batchkit" in path.parts and path.name.startswith(("part-", "letters-")):
                said = msgspec.json.decode(path.with_name(f".{path.name}.meta").read_bytes())
                assert path.stat().st_size == int(said["bytes"]), path
        checkpoint = self.store.load(KEY)
        assert checkpoint is None or decode(checkpoint).run == self.identity.run


def leftovers(folder: Path) -> list[str]:
    """Return the temporary files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.tmp"))


class SmallDisk:
    """A file system of its own that can be filled up, and made read-only.

    :param folder: where it is mounted.
    :param pages: its size, in pages of 4 KiB: no file takes less than one.
    """

    def __init__(self, folder: Path, pages: int) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        self._pages = pages

    def leave(self, pages: int) -> None:
        """Fill it up but for some pages."""
        free = shutil.disk_usage(self.folder).free - pages * 4096
        with self._ballast.open("wb") as file:
            file.write(b"\0" * max(0, free))

    def make_room(self) -> None:
        """Empty it but for what others wrote."""
        self._ballast.unlink(missing_ok=True)

    def remount(self, option: str) -> None:
        """Make it read-only (``ro``) or writable again (``rw``)."""
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.folder)], check=True, timeout=30)


@contextmanager
def small_disk(folder: Path, *, pages: int) -> Iterator[SmallDisk]:
    """Mount a small file system for the time of a ``with`` block; skip the test where that is not allowed."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={pages * 4}k", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
        timeout=30,
    )
    if mounted.returncode != 0:
        pytest.skip("a small file system can only be mounted by root: run the tests as root to get it")
    try:
        yield SmallDisk(folder, pages)
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


def ended(run: FolderRun, **sink: Any) -> BatchkitError | None:
    """Run leg after leg until the run is complete (None) or fails (its error)."""
    try:
        run.to_the_end(**sink)
    except BatchkitError as error:
        return error
    return None
