"""A checkpoint file is whole or absent, private, and its troubles are told in one line."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.engine.checkpoint import decode
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    CannotResumeError,
    PermanentError,
    TransientError,
)
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.stores.file import FileStore

if TYPE_CHECKING:
    from collections.abc import Callable


def test_file_is_private_and_alone(tmp_path: Path) -> None:
    """Only its owner may read it, and no temporary file stays behind."""
    store = FileStore(tmp_path / "new" / "folder")
    store.save("orders.json", "value")
    (path,) = (tmp_path / "new" / "folder").iterdir()
    assert path == store.path("orders.json")
    assert path.name == "orders.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("when", ["before", "after"])
def test_save_is_one_effect(tmp_path: Path, when: str) -> None:
    """A process that dies at the save leaves the old value or the new one."""
    store = FileStore(tmp_path)
    store.save("key", "old")

    def die(name: str, moment: str) -> None:
        if (name, moment) == ("checkpoint.save", when):
            raise KeyboardInterrupt

    with probing(die), pytest.raises(KeyboardInterrupt):
        store.save("key", "new")
    assert store.load("key") == ("old" if when == "before" else "new")


def test_failed_write_leaves_the_old_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full is told, and costs nothing of what was there."""
    store = FileStore(tmp_path)
    store.save("key", "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TransientError, match="cannot be written: No space left on device; free some space"):
        store.save("key", "new")
    assert store.load("key") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.EACCES, PermanentError), (errno.EROFS, PermanentError), (errno.EIO, TransientError)],
)
def test_troubles_are_classed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[BatchkitError]
) -> None:
    """A folder that may not be written stays so; a device may recover."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    store = FileStore(tmp_path)
    calls: dict[str, Callable[[], object]] = {
        "mkdir": lambda: store.save("key", "value"),
        "read_bytes": lambda: store.load("key"),
        "unlink": lambda: store.delete("key"),
    }
    for name, call in calls.items():
        with monkeypatch.context() as patched:
            patched.setattr(Path, name, refuse)
            with pytest.raises(expected, match=str(tmp_path)):
                call()


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    """A path that cannot hold files is refused, saying which."""
    (tmp_path / "file").write_text("")
    with pytest.raises(PermanentError, match="cannot be written"):
        FileStore(tmp_path / "file").save("key", "value")


def test_damaged_file(tmp_path: Path) -> None:
    """Bytes that are no text are refused as any other damaged checkpoint is, and can be replaced."""
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    store = FileStore(tmp_path)
    loaded = store.load("key")
    assert loaded is not None
    with pytest.raises(CannotResumeError, match="damaged"):
        decode(loaded)
    store.save("key", "anew")
    assert store.load("key") == "anew"


def test_no_key_leaves_the_folder(tmp_path: Path) -> None:
    """Dots and slashes in a key name no other folder."""
    store = FileStore(tmp_path / "checkpoints")
    for key in (".", "..", "../up", "/etc/passwd", "a/b"):
        store.save(key, key)
        assert store.path(key).parent == tmp_path / "checkpoints"
        assert store.load(key) == key
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
