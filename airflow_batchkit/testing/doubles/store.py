"""A checkpoint store in memory."""

from __future__ import annotations

import threading

from airflow_batchkit.engine.checkpoint import Checkpoint, decode
from airflow_batchkit.engine.failpoints import effect
from airflow_batchkit.testing.script import Script


class MemoryStore:
    """Keeps checkpoints as long as the object lives; give the same store to each leg.

    Calls in the script: ``"load"``, ``"save"``, ``"delete"``.

    :param script: failures to play.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.values: dict[str, str] = {}
        self.history: list[tuple[str, str]] = []
        self._never_closed = threading.Event()

    @property
    def description(self) -> str:
        """Where the values lie."""
        return "memory"

    def load(self, key: str) -> str | None:
        """Return the value, None when there is none."""
        with self.script.playing("load", self._never_closed):
            return self.values.get(key)

    def save(self, key: str, stored: str) -> None:
        """Replace the value, and keep every version in ``history``."""
        with self.script.playing("save", self._never_closed), effect("checkpoint.save"):
            self.values[key] = stored
            self.history.append((key, stored))

    def delete(self, key: str) -> None:
        """Remove the value."""
        with self.script.playing("delete", self._never_closed), effect("checkpoint.delete"):
            self.values.pop(key, None)

    def checkpoint(self, key: str) -> Checkpoint | None:
        """Return the stored checkpoint decoded, None when there is none."""
        stored = self.values.get(key)
        return None if stored is None else decode(stored)

    def checkpoints(self, key: str) -> list[Checkpoint]:
        """Return every version that was ever saved under the key, oldest first."""
        return [decode(stored) for saved_key, stored in self.history if saved_key == key]
