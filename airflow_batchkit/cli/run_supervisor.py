"""Stands where Airflow's supervisor stands in a worker, and answers what can be known without Airflow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow_batchkit.engine.exceptions import UsageError

RETURN_VALUE = "return_value"
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@contextmanager
def supervised(xcoms: Mapping[tuple[str, str], Any]) -> Iterator[None]:
    """Answer Airflow's questions for the time of a ``with`` block.

    :param xcoms: what other tasks returned, by task id and key.
    """
    from airflow.sdk.execution_time.supervisor import set_supervisor_comms

    with set_supervisor_comms(CommandLineSupervisor(xcoms)):
        yield


class CommandLineSupervisor:
    """Knows the XComs that were given, and no connection or variable beyond the environment's.

    :param xcoms: what other tasks returned, by task id and key.
    """

    def __init__(self, xcoms: Mapping[tuple[str, str], Any]) -> None:
        self._xcoms = xcoms

    def send(self, msg: Any) -> Any:
        """Answer one question of Airflow's task SDK.

        :raises UsageError: the answer is in Airflow's database only.
        """
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time import comms

        if isinstance(msg, comms.MaskSecret):
            return None  # the task SDK has masked it in this process already
        if isinstance(msg, comms.GetConnection):
            return comms.ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND, detail={"conn_id": msg.conn_id})
        if isinstance(msg, comms.GetVariable):
            return comms.ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND, detail={"key": msg.key})
        if isinstance(msg, comms.GetXCom):
            return comms.XComResult(key=msg.key, value=self._xcom(msg.task_id, msg.key))
        if isinstance(msg, comms.GetXComSequenceSlice):
            return comms.XComSequenceSliceResult(root=[self._xcom(msg.task_id, msg.key)])
        raise UsageError(
            f"what the templates ask for ({_in_words(type(msg).__name__)}) is in Airflow's database only; "
            "run the task in Airflow, or give the DAG a param for it"
        )

    def _xcom(self, task_id: str, key: str) -> Any:
        if (task_id, key) not in self._xcoms:
            option = task_id if key == RETURN_VALUE else f"{task_id}:{key}"
            raise UsageError(
                f"what task {task_id!r} returned ({key}) is not known here: give it with --xcom {option}=JSON"
            )
        return self._xcoms[task_id, key]


def _in_words(message: str) -> str:
    """Turn ``GetPrevSuccessfulDagRun`` into ``prev successful dag run``."""
    return _WORD.sub(" ", message).lower().removeprefix("get ")
