"""Which run a task instance is: a name that is safe in object keys, a marker that changes with a clear."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow_batchkit.engine.job import RunIdentity

CHECKPOINT_KEY = "batchkit_checkpoint"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_RUN = 120


def run_identity(
    context: Mapping[str, Any], *, when_cleared: str, restart: bool, max_checkpoint_age: timedelta
) -> RunIdentity:
    """Return the identity of a running task instance.

    The clear marker is ``max_tries``, compared for equality: it is set when the task instance is made and
    raised by a clear, and by nothing else. A clear of a *running* task does not raise it.

    :raises UsageError: ``when_cleared`` is neither ``"resume"`` nor ``"restart"``.
    """
    task = context["ti"]
    return RunIdentity(
        run=run_name(task.run_id, getattr(task, "map_index", -1)),
        clear_marker=str(task.max_tries),
        when_cleared=when_cleared,
        restart=restart,
        max_checkpoint_age=max_checkpoint_age,
    )


def run_name(run_id: str, map_index: int = -1) -> str:
    """Return a name for the run that is safe in object keys and in file names.

    A digest is added wherever something had to be replaced or cut: two runs never share a name.

    :param run_id: Airflow's, with colons and plus signs.
    :param map_index: -1 for a task that is not mapped.
    """
    name = _UNSAFE.sub("_", run_id).lstrip(".")[:_MAX_RUN]
    if name != run_id:
        name = f"{name}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"
    return name if map_index < 0 else f"{name}.map{map_index}"
