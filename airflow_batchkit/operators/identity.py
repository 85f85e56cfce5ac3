"""Which run a task instance is: a name that is safe in object keys, a marker that changes with a clear."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from airflow_batchkit.engine.job import RunIdentity

CHECKPOINT_KEY = "batchkit_checkpoint"
AIRFLOW = "Airflow"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_RUN = 120


def run_identity(
    context: Mapping[str, Any],
    *,
    when_cleared: str,
    restart: bool,
    max_checkpoint_age: timedelta,
    shared: bool = False,
) -> RunIdentity:
    """Return the identity of a running task instance.

    The clear marker is ``max_tries``, compared for equality: it is set when the task instance is made and
    raised by a clear, and by nothing else. A clear of a *running* task does not raise it.

    :param shared: the checkpoint is shared with the command line, which knows the run's date, not its id.
    :raises UsageError: ``when_cleared`` is neither ``"resume"`` nor ``"restart"``.
    """
    task = context["ti"]
    map_index = getattr(task, "map_index", -1)
    date = context.get("logical_date") if shared else None
    if date is None:
        name = run_name(task.run_id, map_index)
    else:
        name = shared_run_name(date, conf=getattr(context.get("dag_run"), "conf", None), map_index=map_index)
    return RunIdentity(
        run=name,
        clear_marker=str(task.max_tries),
        when_cleared=when_cleared,
        restart=restart,
        max_checkpoint_age=max_checkpoint_age,
        origin={
            "dag_id": task.dag_id,
            "task_id": task.task_id,
            "run_id": task.run_id,
            "map_index": getattr(task, "map_index", -1),
            "try_number": task.try_number,
        },
        holder=AIRFLOW if shared else "",
    )


def shared_run_name(logical_date: datetime, *, conf: Mapping[str, Any] | None, map_index: int = -1) -> str:
    """Return the name that a run has in Airflow and by hand: its logical date, and a digest of its conf.

    :param conf: what the run was started with; another conf is another run.
    :param map_index: -1 for a task that is not mapped.
    """
    date = logical_date.astimezone(UTC)
    name = f"{date:%Y%m%dT%H%M%S}" + (f".{date.microsecond:06d}" if date.microsecond else "") + "Z"
    if conf:
        digest = hashlib.sha256(msgspec.json.encode(conf, order="sorted", enc_hook=str)).hexdigest()
        name = f"{name}-{digest[:8]}"
    return run_name(name, map_index)


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
