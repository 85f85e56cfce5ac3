"""What a task's process leaves for its DAG's callback: that it is telling of its failure, and that it has told.

The two run in different processes, often on different machines, and at about the same time. They meet at an XCom
of the task, which its process may write and the dag-processor may read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from airflow_batchkit.notifications.destination import SlackDestination
    from airflow_batchkit.notifications.incident import Incident

XCOM_KEY = "batchkit_alert"
# A process that was killed leaves no mark: this is how long we look for one.
APPEARS_WITHIN = 3.0
# Longer than sending may take.
ENDS_WITHIN = 20.0
_LOOK_EVERY = 0.5

_log = logging.getLogger(__name__)


def mark(
    context: Mapping[str, Any],
    incident: Incident,
    destination: SlackDestination,
    state: Literal["telling", "told"],
) -> None:
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
    """Tell whether a task's own alert about this try went to the same place; waits while it is being sent.

    :param context: of the DAG's callback.
    :param incident: what it would tell.
    :param destination: where to.
    """
    ti = context.get("ti")
    if ti is None:
        return False
    began = time.monotonic()
    while True:
        try:
            found = ti.xcom_pull(task_ids=ti.task_id, key=XCOM_KEY, map_indexes=ti.map_index)
        except Exception:  # noqa: BLE001  # said twice is better than not at all
            _log.warning("alert: cannot tell whether the task's own alert is out", exc_info=True)
            return False
        ours = isinstance(found, Mapping) and _about(incident, destination).items() <= found.items()
        if ours and found["state"] == "told":
            return True
        if time.monotonic() - began > (ENDS_WITHIN if ours else APPEARS_WITHIN):
            return False
        time.sleep(_LOOK_EVERY)


def _about(incident: Incident, destination: SlackDestination) -> dict[str, Any]:
    return {"try_number": incident.try_number, "to": repr(destination)}
