"""Checkpoints in a local folder: for the command line, and wherever one machine runs the job."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path
from urllib.parse import quote

from typing_extensions import override

from airflow_batchkit.engine.checkpoint import CheckpointStore
from airflow_batchkit.engine.exceptions import PermanentError, TransientError
from airflow_batchkit.engine.failpoints import effect

_MAX_NAME = 200
_TRANSIENT = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ESTALE,
    errno.ETIMEDOUT,
}


class FileStore(CheckpointStore):
    """One file per key, replaced whole; the value survives a power cut once :meth:`save` returns.

    :param folder: made when missing. A file's name is its key, percent-encoded where the key holds odd
        characters: for one certain file give its folder here and its name as the key.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)

    @property
    @override
    def description(self) -> str:
        return self._folder.absolute().as_uri()

    def path(self, key: str) -> Path:
        """Return the file that holds a key's value."""
        name = quote(key, safe=" +=@,")
        if not name.strip("."):
            name = name.replace(".", "%2E")
        if len(name) > _MAX_NAME:
            name = f"{name[: _MAX_NAME - 17]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        return self._folder / name

    @override
    def load(self, key: str) -> str | None:
        path = self.path(key)
        try:
            # Not text is damaged like any other text that is no checkpoint: a restart can pass over it.
            return path.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _classed(error, f"the checkpoint {path} cannot be read") from error

    @override
    def save(self, key: str, stored: str) -> None:
        path = self.path(key)
        try:
            with effect("checkpoint.save"):
                self._replace(path, stored.encode())
        except OSError as error:
            raise _classed(error, f"the checkpoint {path} cannot be written") from error

    @override
    def delete(self, key: str) -> None:
        path = self.path(key)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _classed(error, f"the checkpoint {path} cannot be removed") from error

    def _replace(self, path: Path, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # The temporary file is made with mode 0600, and the rename keeps it: cursors hold keys of records.
        descriptor, temporary = tempfile.mkstemp(dir=self._folder, prefix=".batchkit-", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_folder(self._folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _classed(error: OSError, what: str) -> PermanentError | TransientError:
    message = f"{what}: {error.strerror or error}"
    if error.errno in _TRANSIENT:
        return TransientError(f"{message}; free some space or try again")
    return PermanentError(f"{message}; choose a folder that this process may write")
