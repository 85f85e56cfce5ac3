"""Airflow Variables, for Airflow below 3.3: kept through retries and clears, seen by all DAGs."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from typing_extensions import override

from airflow_batchkit.engine.checkpoint import CheckpointStore
from airflow_batchkit.engine.exceptions import PermanentError
from airflow_batchkit.engine.failpoints import effect
from airflow_batchkit.stores.calls import AirflowCalls

PREFIX = "batchkit_checkpoint"
_MAX_NAME = 240
_SAFE = re.compile(r"[A-Za-z0-9._+~-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScope:
    """Whose checkpoint it is; a Variable, unlike the task state store, does not know.

    :param dag_id: the DAG.
    :param task_id: the task, with its groups.
    :param run_id: the DAG run.
    :param map_index: -1 for a task that is not mapped.
    """

    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1


class VariableStore(CheckpointStore):
    """Keeps each checkpoint in a Variable ``batchkit_checkpoint.<dag>.<task>.<run>.<map index>.<digest>``.

    The digest tells names apart that look alike once odd characters are replaced and long parts are cut.
    Finished runs leave their Variable behind: ``batchkit checkpoints clear --older-than`` removes them.

    :param scope: whose checkpoints these are.
    :param airflow: makes the calls.
    """

    def __init__(self, scope: TaskScope, *, airflow: AirflowCalls) -> None:
        self._scope = scope
        self._airflow = airflow
        self._read_back: set[str] = set()

    @property
    @override
    def description(self) -> str:
        return f"Airflow Variables ({PREFIX}.…)"

    def name(self, key: str) -> str:
        """Return the name of the Variable that holds a key's value: at most 240 safe characters."""
        scope = self._scope
        parts = (key, scope.dag_id, scope.task_id, scope.run_id, str(scope.map_index))
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        readable = ".".join("_".join(_SAFE.findall(part)) for part in (PREFIX, *parts[1:]))
        return f"{readable[: _MAX_NAME - len(digest) - 1]}.{digest}"

    @override
    def load(self, key: str) -> str | None:
        return self._airflow.call("load of the checkpoint", _get, self.name(key))

    @override
    def save(self, key: str, stored: str) -> None:
        name = self.name(key)
        with effect("checkpoint.save"):
            self._airflow.call("save of the checkpoint", _set, name, stored)
        if name not in self._read_back:
            self._refuse_shadow(name, stored)
            self._read_back.add(name)

    @override
    def delete(self, key: str) -> None:
        self._airflow.call("delete of the checkpoint", _delete, self.name(key))

    def _refuse_shadow(self, name: str, stored: str) -> None:
        if self._airflow.call("read-back of the checkpoint", _get, name) != stored:
            raise PermanentError(
                f"Variable {name} was saved but reads differently: an environment variable or a secrets "
                "backend holds one of the same name, which hides it; remove that one"
            )


def _get(name: str) -> str | None:
    from airflow.providers.common.compat.sdk import Variable

    value = Variable.get(name, default=None)
    return _ask_server(name) if value is None else str(value)


def _ask_server(name: str) -> str | None:
    # ``Variable.get`` makes "not found" of every failure of the API: a run of hours would begin anew.
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse, GetVariable, VariableResult
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    answer = SUPERVISOR_COMMS.send(GetVariable(key=name))
    if isinstance(answer, ErrorResponse) and answer.error != ErrorType.VARIABLE_NOT_FOUND:
        raise AirflowRuntimeError(answer)
    return answer.value if isinstance(answer, VariableResult) else None


def _set(name: str, stored: str) -> None:
    from airflow.providers.common.compat.sdk import Variable

    Variable.set(name, stored, description="progress of a batchkit task; deleting it restarts the run")


def _delete(name: str) -> None:
    from airflow.providers.common.compat.sdk import Variable

    if _get(name) is not None:
        Variable.delete(name)
