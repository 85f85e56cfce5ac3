"""The task state store of Airflow 3.3: kept through retries and clears, fenced by the task instance's id."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol
from urllib.parse import quote

from typing_extensions import override

from airflow_batchkit.engine.checkpoint import CheckpointStore
from airflow_batchkit.engine.exceptions import BatchkitError, TransientError
from airflow_batchkit.engine.failpoints import effect
from airflow_batchkit.stores.calls import AirflowCalls


class TaskState(Protocol):
    """``context["task_state_store"]``."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value, or the default."""
        ...

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """Replace the value."""
        ...

    def delete(self, key: str) -> None:
        """Remove the value; nothing happens when there is none."""
        ...


class TaskStateStore(CheckpointStore):
    """Keeps checkpoints in the running task's own state store.

    :param state: ``context["task_state_store"]``.
    :param airflow: makes the calls.
    :param retention: how long a value is kept after its last save, so that nothing piles up.
    """

    def __init__(self, state: TaskState, *, airflow: AirflowCalls, retention: timedelta) -> None:
        self._state = state
        self._airflow = airflow
        self._retention = retention

    @property
    @override
    def description(self) -> str:
        return "the task state store (UI: Storage > Task State Store)"

    @override
    def load(self, key: str) -> str | None:
        found = self._call("load of the checkpoint", lambda: self._state.get(_safe(key)))
        if found is None:
            # The API answers 404 for a missing key and for a task instance that is gone; ``get`` makes
            # None of both. A delete tells them apart; it names a key that nobody uses.
            self._call("load of the checkpoint", lambda: self._state.delete(f"{_safe(key)}.probe"))
            return None
        # Whoever edits the value in the UI may leave JSON instead of text; decoding it says what is wrong.
        return found if isinstance(found, str) else json.dumps(found)

    @override
    def save(self, key: str, stored: str) -> None:
        with effect("checkpoint.save"):
            self._call(
                "save of the checkpoint",
                lambda: self._state.set(_safe(key), stored, retention=self._retention),
            )

    @override
    def delete(self, key: str) -> None:
        self._call("delete of the checkpoint", lambda: self._state.delete(_safe(key)))

    def _call(self, what: str, function: Callable[[], Any]) -> Any:
        try:
            return self._airflow.call(what, function)
        except BatchkitError:
            raise
        except Exception as error:  # a state store backend of the site's own may raise anything
            message = f"{what}: the task state store failed ({type(error).__name__}: {error})"
            raise TransientError(message) from error


def _safe(key: str) -> str:
    """Return the key as the API can carry it in a path: odd characters percent-encoded."""
    return quote(key, safe=" +=@,|:")
