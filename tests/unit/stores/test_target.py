"""Checkpoints beside the output: who loses says to whom; damage and lost answers are told apart."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.engine.checkpoint import Checkpoint, decode, encode
from airflow_batchkit.engine.exceptions import (
    CannotResumeError,
    PermanentError,
    SupersededError,
    TransientError,
)
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.job import Job
from airflow_batchkit.engine.kept_values import KeptValue, KeptValues
from airflow_batchkit.stores.target import TargetStore, target_store
from airflow_batchkit.testing.doubles import NoConnections

if TYPE_CHECKING:
    from pathlib import Path


def stored(leg: str) -> str:
    """Make a stored checkpoint of a leg."""
    return encode(Checkpoint(run="run-7", token=leg, generation="g", started_at=0.0))


@pytest.fixture
def store(tmp_path: Path) -> TargetStore:
    """Give the store of a job that writes into a folder."""
    return another(tmp_path)


def another(folder: Path) -> TargetStore:
    """Open the store of a leg of its own."""
    job = Job(
        name="j", source=IterableSource(records=list), sink=ObjectStorageSink(url=f"file://{folder}/out")
    )
    return target_store(job, NoConnections(), logging.getLogger("test"))


def file_of(folder: Path) -> Path:
    """Return the file that holds the key ``run``."""
    return folder / "out" / "_batchkit" / "checkpoint-run.json"


def test_it_lies_beside_the_output(store: TargetStore, tmp_path: Path) -> None:
    """A person finds it by its name, below the folder that readers of the output skip."""
    with closing(store):
        store.save("run", "value")
        store.save("run.2/..", "other")
    assert store.description == f"file://{tmp_path}/out/_batchkit"
    assert file_of(tmp_path).read_text() == "value"
    assert store.names() == ["run", "run.2/.."]


def test_the_loser_names_the_winner(store: TargetStore, tmp_path: Path) -> None:
    """One line: what was changed, by which leg of which run, and what this leg does now."""
    store.load("run")
    another(tmp_path).save("run", stored("leg-b"))
    with pytest.raises(SupersededError, match=r"'run' in file://.* by leg leg-b of run run-7 .* stops here"):
        store.save("run", stored("leg-a"))


def test_the_loser_of_a_removal_says_so(store: TargetStore, tmp_path: Path) -> None:
    """Somebody removed the value between two saves."""
    store.save("run", stored("leg-a"))
    another(tmp_path).delete("run")
    with pytest.raises(SupersededError, match="changed by somebody who removed it"):
        store.save("run", stored("leg-a"))


def test_a_stranger_is_not_named_by_guess(store: TargetStore, tmp_path: Path) -> None:
    """What lies there instead is no checkpoint: the line does not pretend to know whose it is."""
    store.save("run", stored("leg-a"))
    file_of(tmp_path).write_text("scribbled over")
    with pytest.raises(SupersededError, match="changed by somebody else"):
        store.save("run", stored("leg-a"))


def test_a_value_that_is_not_text_is_damaged(store: TargetStore, tmp_path: Path) -> None:
    """It is refused as any other damaged checkpoint is, and a leg that begins anew can replace it."""
    store.save("run", "value")
    file_of(tmp_path).write_bytes(b"\xff\xfe")
    loaded = store.load("run")
    assert loaded is not None
    with pytest.raises(CannotResumeError, match="damaged"):
        decode(loaded)
    store.save("run", "anew")
    assert store.load("run") == "anew"


def test_a_save_is_one_effect(store: TargetStore, tmp_path: Path) -> None:
    """The kill-anywhere sweeps strike before and after it."""
    noted: list[tuple[str, str]] = []
    with probing(lambda name, when: noted.append((name, when))):
        store.save("run", "value")
    assert noted == [("checkpoint.save", "before"), ("checkpoint.save", "after")]
    assert file_of(tmp_path).exists()


class Failing(KeptValues):
    """Values that are written, or not, without an answer.

    :param applied: whether the write was done before the connection broke.
    """

    def __init__(self, values: KeptValues, *, applied: bool) -> None:
        self.values = values
        self.applied = applied
        self.failures = 1

    @property
    @override
    def description(self) -> str:
        return self.values.description

    @override
    def read(self, name: str) -> KeptValue | None:
        return self.values.read(name)

    @override
    def write(self, name: str, content: bytes, *, version: str | None) -> str | None:
        if self.failures and not self.applied:
            self.failures -= 1
            raise TransientError("the connection broke")
        written = self.values.write(name, content, version=version)
        if self.failures:
            self.failures -= 1
            raise TransientError("the answer was lost")
        return written

    @override
    def delete(self, name: str) -> None:
        self.values.delete(name)

    @override
    def names(self) -> list[str]:
        return self.values.names()

    @override
    def close(self) -> None:
        self.values.close()


@pytest.mark.parametrize("applied", [True, False])
def test_a_lost_answer_is_no_conflict(store: TargetStore, tmp_path: Path, *, applied: bool) -> None:
    """The same save tried again succeeds, whether or not the first try was applied; so does the next."""
    store.save("run", "before")
    unlucky = TargetStore(Failing(another(tmp_path)._values, applied=applied))
    assert unlucky.load("run") == "before"
    with pytest.raises(TransientError):
        unlucky.save("run", "after")
    unlucky.save("run", "after")
    unlucky.save("run", "later")
    assert file_of(tmp_path).read_text() == "later"


def test_a_claim_between_look_and_save_wins(store: TargetStore, tmp_path: Path) -> None:
    """The older leg looks, a newer one claims, the older one saves: it is superseded, the claim stays."""
    store.save("run", stored("leg-a"))
    assert store.load("run") == stored("leg-a")
    newer = another(tmp_path)

    def claim(_: str, when: str) -> None:
        if when == "before" and newer not in claimed:
            claimed.append(newer)
            newer.load("run")
            newer.save("run", stored("leg-b"))

    claimed: list[TargetStore] = []
    with probing(claim), pytest.raises(SupersededError, match="by leg leg-b"):
        store.save("run", stored("leg-a"))
    assert newer.load("run") == stored("leg-b")


@pytest.mark.parametrize(
    ("code", "kind", "advice"),
    [
        (errno.ENOSPC, PermanentError, "make room"),
        (errno.EDQUOT, PermanentError, "make room"),
        (errno.EIO, TransientError, "write of"),
    ],
)
def test_a_disk_that_is_full_keeps_the_old_value(
    store: TargetStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    code: int,
    kind: type[Exception],
    advice: str,
) -> None:
    """The save fails with what to do; what was saved before it is whole, and the next save is made."""
    store.save("run", "before")

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(kind, match=advice):
            store.save("run", "after")
    assert file_of(tmp_path).read_text() == "before"
    store.save("run", "after")
    assert file_of(tmp_path).read_text() == "after"
