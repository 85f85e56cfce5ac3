"""Where a job stands, read from the progress that its operator leaves in Airflow."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PROGRESS_STATE_KEY = "progress"
PROGRESS_XCOM_KEY = "batchkit_progress"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The last progress that was reported before something happened.

    :param line: batch, records, part of the whole, rate, dead letters: as in the task's log.
    :param cursor: the end of the last window that is durable.
    """

    line: str
    cursor: str | None = None


def standing_of_task(context: Mapping[str, Any]) -> Standing | None:
    """Read the progress of the task that a failure callback is about; None where there is none to be had.

    :param context: as Airflow hands it to ``on_failure_callback``.
    """
    exception = context.get("exception")
    if isinstance(exception, BaseException) and not isinstance(exception, Exception):
        # A timeout may have cut a call to Airflow: from then on, each answer belongs to the call before.
        return None
    try:
        # Only the worker has the state store; the dag-processor, which gives no exception, can read XComs.
        store = context.get("task_state_store") if exception is not None else None
        stored = store.get(PROGRESS_STATE_KEY) if store is not None else None
        return _standing(stored or _progress_xcom(context))
    except Exception:  # noqa: BLE001  # an alert without progress is better than no alert
        _log.warning("alert: the progress of the task could not be read", exc_info=True)
        return None


async def standing_of_run(*, dag_id: str, run_id: str, task_id: str) -> Standing | None:
    """Read a task's progress from the triggerer; None where there is none to be had.

    :param dag_id: where.
    :param run_id: in which run.
    :param task_id: which task; not mapped.
    """
    from airflow.providers.common.compat.sdk import XCom
    from asgiref.sync import sync_to_async

    wanted = {"key": PROGRESS_XCOM_KEY, "dag_id": dag_id, "task_id": task_id, "run_id": run_id}
    # Only from Airflow 3.3 on can XComs be read without leaving the event loop.
    read = getattr(XCom, "aget_one", None) or sync_to_async(XCom.get_one)
    try:
        return _standing(await read(**wanted))
    except Exception:  # noqa: BLE001  # an alert without progress is better than no alert
        _log.warning("alert: the progress of task %s could not be read", task_id, exc_info=True)
        return None


def _progress_xcom(context: Mapping[str, Any]) -> Any:
    ti = context.get("ti")
    if ti is None:
        return None
    return ti.xcom_pull(task_ids=ti.task_id, key=PROGRESS_XCOM_KEY, map_indexes=ti.map_index)


def _standing(stored: object) -> Standing | None:
    if not isinstance(stored, Mapping) or not stored.get("line"):
        return None
    return Standing(line=str(stored["line"]), cursor=str(stored["cursor"]) if stored.get("cursor") else None)
