"""What only a folder can do wrong."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from airflow_batchkit.connectors.object_storage import file_store
from airflow_batchkit.connectors.object_storage.file_store import FileStore
from airflow_batchkit.connectors.object_storage.locations import Location
from airflow_batchkit.connectors.object_storage.store import (
    SHA256,
    Condition,
    ConflictError,
    MissingObjectError,
)
from airflow_batchkit.engine.exceptions import PermanentError, TransientError, UsageError


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """Give an empty folder, opened."""
    return FileStore(Location(scheme="file", bucket="", prefix=str(tmp_path / "out")))


def failing(number: int) -> Any:
    """Return a function that fails as the operating system does."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_full_disk_leaves_nothing_half(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full in the middle of a write gives one clear line and no torn file."""
    store.put("part", b"old")
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with pytest.raises(PermanentError, match=r"the disk is full; make room"):
        store.put("part", b"new content")
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["part"]
    assert (tmp_path / "out" / "part").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.EACCES, UsageError, "permission denied"),
        (errno.EROFS, UsageError, "read-only"),
        (errno.EDQUOT, PermanentError, "quota"),
        (errno.EIO, TransientError, "may work when tried again"),
    ],
)
def test_errors_of_the_system_say_what_to_do(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], said: str
) -> None:
    """Each error is one of ours, in one line with the path and the next step."""
    store.put("part", b"")
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(kind, match=said) as raised:
        store.put("part", b"x")
    assert "/out/part" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_deleted_while_it_is_looked_at_is_missing(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object whose deletion comes between its size and its metadata is gone, not without metadata."""
    store.put("part", b"x", metadata={SHA256: "0"})
    read_bytes = Path.read_bytes

    def delete_first(path: Path) -> bytes:
        store.delete(["part"])
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", delete_first)
    with pytest.raises(MissingObjectError):
        store.head("part")


def test_path_through_a_file_is_refused(store: FileStore, tmp_path: Path) -> None:
    """A part of the path that is a file is found when the place is opened."""
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(UsageError, match="a file, not a folder"):
        store.check()


def test_unwritable_folder_is_refused(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without permission is found when the place is opened, before any work."""
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, as in CI, may write everywhere
    with pytest.raises(UsageError, match="permission denied"):
        store.check()


def test_copies_without_hard_links(store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has no hard links, the content is copied."""
    store.put("staging/part", b"content")
    monkeypatch.setattr(Path, "hardlink_to", failing(errno.EPERM))
    store.copy("staging/part", "final")
    store.copy("staging/part", "final")
    assert (tmp_path / "out" / "final").read_bytes() == b"content"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["final", "staging"]
    assert [path.name for path in (tmp_path / "out" / "staging").iterdir()] == ["part"]


def test_published_names_only(store: FileStore, tmp_path: Path) -> None:
    """Beside a final object lies nothing of ours: its metadata stays with the staged one."""
    store.put("_batchkit/run/part", b"x", metadata={"records": "1"})
    store.copy("_batchkit/run/part", "part-1")
    store.put("manifest.json", b"{}", metadata={SHA256: "s"}, condition=Condition())
    store.delete(["_batchkit/run/part"])
    store.clean("_batchkit/run/")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "_batchkit",
        "manifest.json",
        "part-1",
    ]


def test_lock_that_is_held_is_not_waited_for_for_ever(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that sleeps in the middle of a conditional write delays others for a bounded time."""
    store.put("manifest.json", b"1", metadata={SHA256: "1"}, condition=Condition())
    monkeypatch.setattr(file_store, "_LOCK_SECONDS", 0.1)
    with (tmp_path / "out" / "_batchkit" / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TransientError, match="locked by another process"):
            store.put("manifest.json", b"2", metadata={SHA256: "2"}, condition=Condition())


def test_left_over_temporary_file_is_written_over(store: FileStore, tmp_path: Path) -> None:
    """What a killed process left of a conditional write goes with the next one."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".manifest.json.tmp").write_text("half")
    store.put("manifest.json", b"whole", metadata={SHA256: "1"}, condition=Condition())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["_batchkit", "manifest.json"]


def test_one_of_many_writers_wins(store: FileStore) -> None:
    """Of many that want to be first at once, exactly one is told that it was."""
    won: list[bytes] = []
    barrier = threading.Barrier(8)

    def race(number: int) -> None:
        text = b"writer %d" % number
        barrier.wait(10)
        try:
            store.put("owner.json", text, metadata={SHA256: "x"}, condition=Condition())
        except ConflictError:
            return
        won.append(text)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(won) == 1
    with store.read("owner.json") as reading:
        assert reading.file.read() == won[0]
