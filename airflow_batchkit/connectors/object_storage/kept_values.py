"""Small values beside an output, each an object that is replaced by conditional writes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import unquote

from typing_extensions import override

from airflow_batchkit.connectors.object_storage.locations import segment
from airflow_batchkit.connectors.object_storage.staging import FOLDER
from airflow_batchkit.connectors.object_storage.store import (
    SHA256,
    Condition,
    ConflictError,
    MissingObjectError,
)
from airflow_batchkit.engine.kept_values import KeptValue, KeptValues

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.store import ObjectStore

_STEM = f"{FOLDER}/checkpoint-"
_EXTENSION = ".json"
_MAX_BYTES = 64 * 1024


class ObjectValues(KeptValues):
    """Objects ``_batchkit/checkpoint-<name>.json``; no publication removes them.

    :param store: where the output lies; closed with this.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @property
    @override
    def description(self) -> str:
        return f"{self._store.location.url}/{FOLDER}"

    @override
    def read(self, name: str) -> KeptValue | None:
        try:
            with self._store.read(_key(name)) as reading:
                return KeptValue(content=reading.file.read(_MAX_BYTES), version=reading.etag)
        except MissingObjectError:
            return None

    @override
    def write(self, name: str, content: bytes, *, version: str | None) -> str | None:
        metadata = {SHA256: hashlib.sha256(content).hexdigest()}
        try:
            return self._store.put(_key(name), content, metadata=metadata, condition=Condition(etag=version))
        except ConflictError:
            return None

    @override
    def delete(self, name: str) -> None:
        self._store.delete([_key(name)])

    @override
    def names(self) -> list[str]:
        keys = [key for key in self._store.keys(_STEM) if key.endswith(_EXTENSION)]
        return sorted(unquote(key.removeprefix(_STEM).removesuffix(_EXTENSION)) for key in keys)

    @override
    def close(self) -> None:
        self._store.close()


def _key(name: str) -> str:
    return f"{_STEM}{segment(name)}{_EXTENSION}"
