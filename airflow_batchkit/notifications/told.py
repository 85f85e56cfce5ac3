"""What a task's own callback leaves for its DAG's callback: that it is telling of a failure, or has told.

The two run at about the same time in different processes, often on different machines. They meet at an XCom
of the task, which the task's process may write and the dag-processor may read, or at the marker file of
``once.py``.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_batchkit.notifications.once import state_of

if TYPE_CHECKING:
    from airflow_batchkit.notifications.destination import SlackDestination
    from airflow_batchkit.notifications.incident import Incident
    from airflow_batchkit.notifications.once import State

XCOM_KEY = "batchkit_alert"
# A process that was killed leaves no mark: this is how long we look for one.
APPEARS_WITHIN = 3.0
# Longer than sending may take.
ENDS_WITHIN = 20.0
_LOOK_EVERY = 0.5

_log = logging.getLogger(__name__)


def alert_key(incident: Incident, destination: SlackDestination) -> tuple[object, ...]:
    """Return what one message is about, and where it goes."""
    return (*incident.key, destination)


def mark(context: Mapping[str, Any], incident: Incident, destination: SlackDestination, state: State) -> None:
    """Leave word for the DAG's callback; does nothing in processes that may not write XComs.

    :param context: of the task's callback.
    :param incident: what is told.
    :param destination: where to.
    :param state: about to tell, or done.
    """
    if "exception" not in context:
        return
    try:
        context["ti"].xcom_push(key=XCOM_KEY, value={**_about(incident, destination), "state": state})
    except Exception:  # noqa: BLE001  # said twice is better than not at all
        _log.warning("alert: the DAG's callback may tell of this again", exc_info=True)


def told_by_the_task(context: Mapping[str, Any], incident: Incident, destination: SlackDestination) -> bool:
    """Say whether a task's own alert about this try went to the same place; waits while it is being sent.

    :param context: of the DAG's callback.
    :param incident: what it would tell.
    :param destination: where to.
    """
    if incident.task_id is None:
        return False
    task_key = alert_key(dataclasses.replace(incident, kind="task_failed"), destination)
    began = time.monotonic()
    while True:
        states = {state_of(task_key), _marked(context, incident, destination)}
        if "told" in states:
            return True
        if time.monotonic() - began > (ENDS_WITHIN if "telling" in states else APPEARS_WITHIN):
            return False
        time.sleep(_LOOK_EVERY)


def _marked(context: Mapping[str, Any], incident: Incident, destination: SlackDestination) -> State | None:
    ti = context["ti"]
    try:
        found = ti.xcom_pull(task_ids=ti.task_id, key=XCOM_KEY, map_indexes=ti.map_index)
    except Exception:  # noqa: BLE001  # said twice is better than not at all
        _log.warning("alert: cannot tell whether the task's own alert is out", exc_info=True)
        return None
    if not isinstance(found, Mapping) or not _about(incident, destination).items() <= found.items():
        return None
    return "told" if found["state"] == "told" else "telling"


def _about(incident: Incident, destination: SlackDestination) -> dict[str, Any]:
    return {"try_number": incident.try_number, "to": repr(destination)}
