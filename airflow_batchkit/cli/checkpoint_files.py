"""Where the command line keeps its checkpoints, and under which names."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from airflow_batchkit.cli.systems import short_name
from airflow_batchkit.cli.urls import Location
from airflow_batchkit.engine.checkpoint import Checkpoint, decode
from airflow_batchkit.engine.exceptions import CannotResumeError, PermanentError, TransientError
from airflow_batchkit.stores.file import FileStore

_LONGEST_SHORT_NAME = 40
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
    def store(self) -> FileStore:
        """The store that the engine saves it in."""
        return FileStore(self.folder)

    @property
    def path(self) -> Path:
        """The file itself (of a real run)."""
        return self.store.path(self.name)

    def read(self, *, mode: str = "real") -> Checkpoint | None:
        """Return what was saved last, None when there is nothing.

        :param mode: ``real``, ``partial`` or ``local``: each has a file of its own.
        :raises CannotResumeError: it is damaged, or a newer version of the package wrote it.
        """
        stored = self.store.load(self.name + _IN_MODE[mode])
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
            os.close(descriptor)
            raise TransientError(
                f"another batchkit process on this machine is at it already ({self.path})"
            ) from error
        try:
            yield
        finally:
            os.close(descriptor)


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
