"""Checkpoints beside the output, by compare-and-set: the command line and Airflow share them."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from typing_extensions import override

from airflow_batchkit.engine.checkpoint import CheckpointStore, decode
from airflow_batchkit.engine.exceptions import CannotResumeError, SupersededError, UsageError
from airflow_batchkit.engine.failpoints import effect
from airflow_batchkit.engine.kept_values import KeepsValues
from airflow_batchkit.engine.source import OpenContext

if TYPE_CHECKING:
    from airflow_batchkit.engine.connections import Connections
    from airflow_batchkit.engine.job import Job
    from airflow_batchkit.engine.kept_values import KeptValue, KeptValues

TARGET = "target"
TARGET_KEY = "run"
"""A target belongs to one run at a time, so it keeps one run's progress, whoever does it."""


class TargetStore(CheckpointStore):
    """Replaces only what it has read or written itself: of two legs that save at once, one is superseded.

    :param values: where the checkpoints lie.
    """

    def __init__(self, values: KeptValues) -> None:
        self._values = values
        self._versions: dict[str, str | None] = {}

    @property
    @override
    def description(self) -> str:
        return self._values.description

    @override
    def load(self, key: str) -> str | None:
        found = self._values.read(key)
        self._versions[key] = None if found is None else found.version
        # Not text is damaged like any other text that is no checkpoint: a restart can pass over it.
        return None if found is None else found.content.decode(errors="replace")

    @override
    def save(self, key: str, stored: str) -> None:
        """Replace the value that this object knows; one that it does not know is somebody else's.

        :raises SupersededError: somebody else has changed it since.
        """
        content = stored.encode()
        with effect("checkpoint.save"):
            version = self._values.write(key, content, version=self._versions.get(key))
        if version is None:
            found = self._values.read(key)
            if found is None or found.content != content:
                raise SupersededError(
                    f"the checkpoint {key!r} in {self.description} was changed by {_whose(found)} in the "
                    "meantime; this leg stops here"
                )
            version = found.version  # this very save, whose answer was lost: it holds this leg's token
        self._versions[key] = version

    @override
    def delete(self, key: str) -> None:
        self._values.delete(key)
        self._versions[key] = None

    def names(self) -> list[str]:
        """Return the keys under which something is saved, sorted."""
        return self._values.names()

    def close(self) -> None:
        """Close sockets. Never raises."""
        self._values.close()


def _whose(found: KeptValue | None) -> str:
    if found is None:
        return "somebody who removed it"
    try:
        checkpoint = decode(found.content.decode(errors="replace"))
    except CannotResumeError:
        return "somebody else"
    return f"leg {checkpoint.token} of run {checkpoint.run}"


def target_store(job: Job, connections: Connections, log: logging.Logger) -> TargetStore:
    """Return the store beside a job's output; asks nothing of it yet.

    :param connections: makes the client.
    :param log: where to say what is done.
    :raises UsageError: the sink can keep nothing beside its output.
    """
    if not isinstance(job.sink, KeepsValues):
        raise UsageError(
            f"{type(job.sink).__name__} can keep no checkpoint beside its output: use another checkpoint "
            "store ('auto' or 'variable' in Airflow, a file on the command line)"
        )
    context = OpenContext(
        connections=connections, timeouts=job.timeouts, now=datetime.now(UTC), job=job.name, log=log
    )
    return TargetStore(job.sink.open_values(context))
