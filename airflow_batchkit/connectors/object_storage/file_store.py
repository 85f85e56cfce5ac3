"""Objects in a folder: written beside their name, synced, and renamed, so that none is ever seen half."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec
from typing_extensions import override

from airflow_batchkit.connectors.object_storage.errors import file_errors
from airflow_batchkit.connectors.object_storage.locations import Location, check_key
from airflow_batchkit.connectors.object_storage.store import (
    Condition,
    ConflictError,
    Content,
    Head,
    ObjectStore,
    Reading,
)
from airflow_batchkit.engine.exceptions import TransientError

_LOCK = "_batchkit/.lock"
_LOCK_SECONDS = 10.0
_LOCK_PAUSE = 0.02
_PIECE = 1024 * 1024


class FileStore(ObjectStore):
    """Objects below a folder. Names that begin with a dot are the store's own and are never listed.

    :param location: the folder; it is made with the first write.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._root = Path(location.prefix)

    @property
    @override
    def location(self) -> Location:
        return self._location

    @property
    @override
    def conditional(self) -> bool:
        return True

    @override
    def now(self) -> float:
        return time.time()

    @override
    def check(self) -> None:
        there = self._root
        while not there.exists() and there != there.parent:
            there = there.parent
        with file_errors(f"look at {self._location.url}"):
            if not there.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(there, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    @override
    def put(
        self,
        key: str,
        content: Content,
        *,
        metadata: Mapping[str, str] | None = None,
        condition: Condition | None = None,
        visible: bool = False,
    ) -> str:
        del visible
        path = self._path(key)
        with file_errors(f"write of {path}"), self._lock(condition):
            self._make_folder(path.parent)
            if condition is not None and self._etag(path) != condition.etag:
                raise ConflictError(f"write of {path}: somebody else wrote it")
            if metadata is not None and condition is None:
                self._write(_sidecar(path), msgspec.json.encode(dict(metadata)), _temporary(path))
            # Under the lock the name may be a fixed one: what a killed process left there is written over.
            locked = path.with_name(f".{path.name}.tmp")
            etag = self._write(path, content, _temporary(path) if condition is None else locked)
            _sync_folder(path.parent)
            return etag

    @override
    def rehearse(self, key: str, content: bytes) -> None:
        self.put(key, content)

    @override
    @contextlib.contextmanager
    def read(self, key: str) -> Iterator[Reading]:
        path = self._path(key)
        with file_errors(f"read of {path}"), path.open("rb") as file:
            etag = _digest(file)
            file.seek(0)
            yield Reading(etag=etag, file=file)

    @override
    @contextlib.contextmanager
    def stream(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        with file_errors(f"read of {path}"), path.open("rb") as file:
            yield file

    @override
    def head(self, key: str) -> Head:
        path = self._path(key)
        with file_errors(f"look at {path}"):
            size = path.stat().st_size
            try:
                metadata = msgspec.json.decode(_sidecar(path).read_bytes())
            except FileNotFoundError:
                path.stat()  # it never had any, or was deleted just now, which makes it missing
                metadata = {}
        return Head(size=size, metadata=metadata)

    @override
    def copy(self, source: str, target: str) -> None:
        origin, path = self._path(source), self._path(target)
        with file_errors(f"copy of {origin} to {path}"):
            self._make_folder(path.parent)
            self._link(origin, path)
            _sync_folder(path.parent)

    @override
    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._path(key)
            with file_errors(f"delete of {path}"):
                path.unlink(missing_ok=True)
                _sidecar(path).unlink(missing_ok=True)

    @override
    def keys(self, prefix: str, *, page: int = 1000) -> Iterator[str]:
        del page
        folder, _, beginning = prefix.rpartition("/")
        yield from self._walk(f"{folder}/" if folder else "", beginning)

    @override
    def folders(self, folder: str) -> list[str]:
        return [f"{folder}{name}/" for name, is_folder in self._entries(folder) if is_folder]

    @override
    def clean(self, folder: str) -> None:
        path = self._root / folder
        with file_errors(f"delete of {path}"):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path)
            # A folder is removed with the last that lay in it; rmdir refuses one that is not empty.
            for parent in path.parents:
                if parent == self._root or not parent.is_relative_to(self._root):
                    return
                with contextlib.suppress(OSError):
                    parent.rmdir()

    @override
    def close(self) -> None:
        """Do nothing: no file stays open between calls."""

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _make_folder(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def _etag(self, path: Path) -> str | None:
        try:
            with path.open("rb") as file:
                return _digest(file)
        except FileNotFoundError:
            return None

    def _write(self, path: Path, content: Content, temporary: Path) -> str:
        digest = hashlib.sha256()
        try:
            with temporary.open("wb") as file:
                for piece in _pieces(content):
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return digest.hexdigest()

    def _link(self, origin: Path, path: Path) -> None:
        # A hard link is a copy that takes no time and no room and is never seen half. Nothing is written into
        # objects, only beside them, so the two names cannot change each other. Temporary names lie beside the
        # source: what a killed process leaves there goes with the staging.
        try:
            path.hardlink_to(origin)
        except FileExistsError:
            if origin.samefile(path):
                return
            temporary = _temporary(origin)
            temporary.hardlink_to(origin)
            temporary.replace(path)
        except FileNotFoundError:
            raise
        except OSError:
            with origin.open("rb") as file:
                self._write(path, file, _temporary(origin))

    @contextlib.contextmanager
    def _lock(self, condition: Condition | None) -> Iterator[None]:
        """Hold the lock while a condition is checked and the write happens; a killed process loses it."""
        if condition is None:
            yield
            return
        path = self._root / _LOCK
        self._make_folder(path.parent)
        deadline = time.monotonic() + _LOCK_SECONDS
        with path.open("ab") as file:
            while not _locked(file):
                if time.monotonic() > deadline:
                    raise TransientError(f"{path} was locked by another process for {_LOCK_SECONDS:.0f} s")
                time.sleep(_LOCK_PAUSE)
            yield

    def _entries(self, folder: str) -> list[tuple[str, bool]]:
        with file_errors(f"listing of {self._root / folder}"):
            try:
                with os.scandir(self._root / folder) as entries:
                    found = [(entry.name, entry.is_dir()) for entry in entries if entry.name[0] != "."]
            except (FileNotFoundError, NotADirectoryError):
                return []
        # As object stores order them: "a/" behind "a-", because they compare the whole key.
        return sorted(found, key=lambda entry: os.fsencode(f"{entry[0]}/" if entry[1] else entry[0]))

    def _walk(self, folder: str, beginning: str) -> Iterator[str]:
        for name, is_folder in self._entries(folder):
            if not name.startswith(beginning):
                continue
            if is_folder:
                yield from self._walk(f"{folder}{name}/", "")
            else:
                yield f"{folder}{name}"


def _sidecar(path: Path) -> Path:
    return path.with_name(f".{path.name}.meta")


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name[-200:]}.{secrets.token_hex(4)}.tmp")


def _pieces(content: Content) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    content.seek(0)
    while piece := content.read(_PIECE):
        yield piece


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(file):
        digest.update(piece)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
