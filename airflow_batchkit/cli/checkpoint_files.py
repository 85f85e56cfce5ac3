"""Where the command line keeps its checkpoints, and under which names."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from typing_extensions import override

from airflow_batchkit.cli.systems import short_name
from airflow_batchkit.cli.urls import Location
from airflow_batchkit.engine.checkpoint import Checkpoint, CheckpointStore, decode
from airflow_batchkit.engine.connections import Connections
from airflow_batchkit.engine.exceptions import CannotResumeError, PermanentError, TransientError
from airflow_batchkit.engine.job import Job
from airflow_batchkit.stores.file import FileStore
from airflow_batchkit.stores.target import TARGET_KEY, TargetStore, target_store

_LONGEST_SHORT_NAME = 40
_LONGEST_PID = 20
_IN_MODE = {"real": "", "partial": ".partial", "local": ".local"}


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """One job's checkpoint on this machine.

    :param folder: where it lies.
    :param name: its file name, which is its key in the store.
    """

    folder: Path
    name: str

    @property
    def store(self) -> CheckpointStore:
        """The store that the engine saves it in."""
        return FileStore(self.folder)

    @property
    def key(self) -> str:
        """Its key in the store."""
        return self.name

    @property
    def holder(self) -> str:
        """Who keeps a second leg of the same run away; empty: nobody else could start one."""
        return ""

    @property
    def place(self) -> str:
        """Where it lies, for messages."""
        return str(self.path)

    @property
    def path(self) -> Path:
        """The file itself (of a real run)."""
        return FileStore(self.folder).path(self.name)

    def read(self, *, mode: str = "real") -> Checkpoint | None:
        """Return what was saved last, None when there is nothing.

        :param mode: ``real``, ``partial`` or ``local``: each has a file of its own.
        :raises CannotResumeError: it is damaged, or a newer version of the package wrote it.
        """
        stored = self.store.load(self.key + _IN_MODE[mode])
        return None if stored is None else decode(stored)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes of this machine away while a ``with`` block runs.

        The lock goes with the process, however it ends.

        :raises TransientError: another process holds it.
        :raises PermanentError: the folder cannot be written.
        """
        import fcntl

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / f".{self.name}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise PermanentError(
                f"checkpoints cannot be kept in {self.folder}: {error.strerror}; "
                "choose a file with --checkpoint"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, _LONGEST_PID, 0).decode(errors="replace") or "of unknown number"
            os.close(descriptor)
            raise TransientError(
                f"another batchkit process on this machine ({holder}) is at it already "
                f"({self.place}): wait for it, or stop it and try again"
            ) from error
        try:
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)


@dataclass(frozen=True, kw_only=True)
class TargetCheckpoint(CheckpointFile):
    """A checkpoint beside the output, which Airflow shares; on this machine lies only a lock.

    :param beside: the store at the target.
    """

    beside: TargetStore

    @property
    @override
    def store(self) -> CheckpointStore:
        return self.beside

    @property
    @override
    def key(self) -> str:
        return TARGET_KEY

    @property
    @override
    def place(self) -> str:
        return self.beside.description

    @property
    @override
    def holder(self) -> str:
        # Whoever has the lock knows that every older leg of this holder is dead.
        return f"batchkit on {platform.node()} ({self.folder})"

    @contextmanager
    @override
    def held(self) -> Iterator[None]:
        with super().held(), closing(self.beside):
            yield


def default_folder() -> Path:
    """Return ``$XDG_STATE_HOME/airflow-batchkit/checkpoints``, or the same below ``~/.local/state``."""
    state = os.environ.get("XDG_STATE_HOME")
    home = Path(state) if state and Path(state).is_absolute() else Path.home() / ".local" / "state"
    return home / "airflow-batchkit" / "checkpoints"


def checkpoint_of_copy(
    source: Location, sink: Location, *, query: Mapping[str, Any] | None, file: Path | None
) -> CheckpointFile:
    """Return the checkpoint of a ``copy``: the same for the same source, sink and query.

    :param file: a file of the user's own choice, None for the default.
    """
    if file is not None:
        return checkpoint_at(file)
    what = [source.url, sorted(source.parameters.items()), sink.url, query]
    digest = hashlib.sha256(msgspec.json.encode(what, order="sorted")).hexdigest()[:8]
    return CheckpointFile(folder=default_folder(), name=f"{_slug(source)}-to-{_slug(sink)}-{digest}")


def checkpoint_at(file: Path) -> CheckpointFile:
    """Return the checkpoint that is kept in a file of the user's choice."""
    return CheckpointFile(folder=file.absolute().parent, name=file.name)


def checkpoint_beside(job: Job, connections: Connections, log: logging.Logger) -> TargetCheckpoint:
    """Return the checkpoint beside a job's output.

    :param connections: makes the client.
    :param log: where to say what is done.
    :raises UsageError: the sink can keep nothing beside its output.
    """
    store = target_store(job, connections, log)
    digest = hashlib.sha256(store.description.encode()).hexdigest()[:16]
    return TargetCheckpoint(folder=default_folder(), name=f"target-{digest}", beside=store)


def saved_in(folder: Path) -> list[str]:
    """Return the names of the checkpoints in a folder, sorted."""
    if not folder.is_dir():
        return []
    return sorted(file.name for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def read_file(path: Path) -> Checkpoint:
    """Read a checkpoint file as it lies there.

    :raises CannotResumeError: it is damaged, or no checkpoint at all.
    """
    try:
        return decode(path.read_bytes().decode())
    except UnicodeDecodeError as error:
        raise CannotResumeError("the stored checkpoint is damaged (not text)") from error


def _slug(location: Location) -> str:
    words = re.findall(r"[a-z0-9]+", short_name(location).lower())
    return "-".join(words)[-_LONGEST_SHORT_NAME:].strip("-") or "all"
