"""Where checkpoints lie, under which names, and that two processes do not share one."""

from __future__ import annotations

import logging
import os
import platform
from pathlib import Path

import pytest

from airflow_batchkit.cli.checkpoint_files import (
    checkpoint_at,
    checkpoint_beside,
    checkpoint_of_copy,
    default_folder,
    read_file,
    saved_in,
)
from airflow_batchkit.cli.urls import parse
from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.engine.checkpoint import Checkpoint, encode
from airflow_batchkit.engine.exceptions import CannotResumeError, PermanentError, TransientError
from airflow_batchkit.engine.job import Job
from airflow_batchkit.testing.doubles import NoConnections

SOURCE = parse("elasticsearch+http://localhost:9200/orders")
SINK = parse("s3://lake/raw/orders")


def stored(run: str = "r1", **fields: object) -> str:
    """Return a stored checkpoint."""
    values = {"run": run, "token": "0" * 16, "generation": "abcd1234", "started_at": 1.0, **fields}
    return encode(Checkpoint(**values))  # type: ignore[arg-type]  # a test's own fields


def test_default_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """State lies where the XDG variable says, else below ~/.local/state; a relative value is ignored."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "airflow-batchkit" / "checkpoints"
    monkeypatch.setenv("HOME", "/home/ada")
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert default_folder() == Path("/home/ada/.local/state/airflow-batchkit/checkpoints")


def test_same_copy_finds_the_same_checkpoint() -> None:
    """The name is readable, the same for the same copy, and another for another source, sink or query."""
    name = checkpoint_of_copy(SOURCE, SINK, query=None, file=None).name
    assert name.startswith("orders-to-lake-raw-orders-")
    assert name == checkpoint_of_copy(SOURCE, SINK, query=None, file=None).name
    others = {
        checkpoint_of_copy(parse("elasticsearch+http://other:9200/orders"), SINK, query=None, file=None).name,
        checkpoint_of_copy(SOURCE, parse("s3://lake/raw2/orders"), query=None, file=None).name,
        checkpoint_of_copy(SOURCE, SINK, query={"match_all": {}}, file=None).name,
    }
    assert name not in others
    assert len(others) == 3


def test_name_is_bounded_whatever_the_urls() -> None:
    """A list of many indices does not make a file name that no file system takes."""
    source = parse("elasticsearch+http://localhost:9200/" + ",".join(f"index-{n}" for n in range(500)))
    assert len(checkpoint_of_copy(source, SINK, query=None, file=None).name) < 120


def test_file_of_the_users_choice(tmp_path: Path) -> None:
    """--checkpoint FILE names the file itself; each mode keeps its own beside it."""
    file = checkpoint_at(tmp_path / "orders.checkpoint")
    assert file.path == tmp_path / "orders.checkpoint"
    assert file.read() is None
    file.store.save(file.name, stored())
    file.store.save(f"{file.name}.local", stored("r2", mode="local"))
    found, local = file.read(), file.read(mode="local")
    assert (found and found.run, local and local.run) == ("r1", "r2")
    assert saved_in(tmp_path) == ["orders.checkpoint", "orders.checkpoint.local"]


def test_second_process_is_kept_away(tmp_path: Path) -> None:
    """While one process works on a checkpoint, another is told so at once; afterwards it may begin."""
    file = checkpoint_at(tmp_path / "folder" / "orders.checkpoint")
    with file.held(), pytest.raises(TransientError, match="another batchkit process"), file.held():
        pytest.fail("held twice")
    with file.held():
        assert saved_in(file.folder) == []


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A folder below a file cannot be made: one line says which, and what to use instead."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(PermanentError, match="choose a file with --checkpoint"),
        checkpoint_at(tmp_path / "file" / "orders").held(),
    ):
        pytest.fail("held")


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    """Whatever lies there, what is no checkpoint is called damaged."""
    for content in (b"\xff\xfe", b"{}", b"", stored().encode()[:-9]):
        (tmp_path / "c").write_bytes(content)
        with pytest.raises(CannotResumeError, match="damaged"):
            read_file(tmp_path / "c")


def test_folder_that_does_not_exist_holds_nothing(tmp_path: Path) -> None:
    """Before the first copy there is no folder, and that is no error."""
    assert saved_in(tmp_path / "none") == []


def test_checkpoint_beside_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One key and one lock per target, whoever asks; the holder is this machine's folder of locks."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    job = Job(
        name="j",
        source=IterableSource(records=list),
        sink=ObjectStorageSink(url=f"file://{tmp_path}/out"),
    )
    first, second = (checkpoint_beside(job, NoConnections(), logging.getLogger("t")) for _ in range(2))
    assert (first.key, first.name) == ("run", second.name)
    assert first.holder == f"batchkit on {platform.node()} ({tmp_path}/state/airflow-batchkit/checkpoints)"
    assert first.read() is None
    said = rf"\({os.getpid()}\) .*file://{tmp_path}/out"
    with first.held(), pytest.raises(TransientError, match=said), second.held():
        pass
