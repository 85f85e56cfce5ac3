"""What happened, taken from whatever an Airflow callback is given."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

from airflow_batchkit.engine.exceptions import BatchkitError
from airflow_batchkit.provider_info import SECTION

Kind: TypeAlias = Literal[
    "task_failed",
    "run_failed",
    "deadline_missed",
    # What `batchkit watch` finds, without a callback of Airflow:
    "run_missing",
    "success_too_old",
    "still_failed",
    "stuck_queued",
    "runs_too_long",
    "dag_paused",
    "dag_gone",
    "import_error",
    "part_down",
    "airflow_unreachable",
    "airflow_refuses",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One thing that people should hear of; a fact that the callback does not give stays None.

    :param kind: what happened.
    :param dag_id: where; empty where it is about no DAG.
    :param run_id: in which run; empty where it is about none.
    :param instance: id of the try (or of the deadline): a task that is cleared gets a new one.
    :param subject: what it is about, where that is no DAG.
    :param task_id: which task; None where the callback is about the whole run.
    :param map_index: None for a task that is not mapped.
    :param try_number: from 1.
    :param tries: how many tries the task has.
    :param logical_date: ISO 8601.
    :param error_type: class of the exception.
    :param error_message: its text.
    :param stack_trace: as Python prints it.
    :param reason: Airflow's own word for why the run failed.
    :param run_state: state of the run when its deadline passed.
    :param deadline: when the run should have been finished, ISO 8601.
    :param log_url: the task's log.
    :param run_url: the run's page.
    :param environment: how this Airflow is called (``[batchkit] environment_name``).
    :param facts: more to say, each with its label.
    :param over: whether this is the news that it is over.
    """

    kind: Kind
    dag_id: str
    run_id: str
    instance: str = ""
    subject: str | None = None
    task_id: str | None = None
    map_index: int | None = None
    try_number: int | None = None
    tries: int | None = None
    logical_date: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    stack_trace: str | None = None
    reason: str | None = None
    run_state: str | None = None
    deadline: str | None = None
    log_url: str | None = None
    run_url: str | None = None
    environment: str | None = None
    facts: tuple[tuple[str, str], ...] = ()
    over: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """What two callbacks about the same thing have in common."""
        return (
            self.dag_id,
            self.run_id,
            self.task_id,
            self.map_index,
            self.try_number,
            self.kind,
            self.instance,
        )


def failure_incident(context: Mapping[str, Any]) -> Incident:
    """Read a failure callback's context.

    At task level the worker gives everything; the dag-processor, which calls back for tasks whose process was
    lost, gives no exception. At DAG level there is a ``reason`` and, where Airflow knows one, the last task.

    :param context: as Airflow hands it to ``on_failure_callback``.
    """
    ti = _task_instance(context)
    if "reason" not in context:
        return _task_incident(context, ti, kind="task_failed")
    if ti is not None:
        return _task_incident(context, ti, kind="run_failed")
    dag_id, run_id = str(getattr(context.get("dag"), "dag_id", "")), str(context.get("run_id", ""))
    return Incident(
        kind="run_failed",
        dag_id=dag_id,
        run_id=run_id,
        reason=_text(context.get("reason")),
        run_url=run_url(dag_id, run_id),
        environment=_environment(),
    )


def deadline_incident(context: Mapping[str, Any], *, task_id: str | None = None) -> Incident:
    """Read a deadline callback's context, which holds only ``dag_run`` and ``deadline``, as plain JSON.

    :param context: as the triggerer hands it to an ``AsyncCallback``.
    :param task_id: the task whose log and progress people will want to see; its map index is not known.
    """
    run: Mapping[str, Any] = context.get("dag_run") or {}
    deadline: Mapping[str, Any] = context.get("deadline") or {}
    dag_id = str(run.get("dag_id", ""))
    run_id = str(run.get("dag_run_id") or run.get("run_id") or "")
    page = run_url(dag_id, run_id)
    return Incident(
        kind="deadline_missed",
        dag_id=dag_id,
        run_id=run_id,
        instance=str(deadline.get("id", "")),
        task_id=task_id,
        logical_date=_text(run.get("logical_date")),
        run_state=_text(run.get("state")),
        deadline=_text(deadline.get("deadline_time")),
        log_url=f"{page}/tasks/{quote(task_id)}" if task_id else None,
        run_url=page,
        environment=_environment(),
    )


def run_url(dag_id: str, run_id: str) -> str:
    """Return the address of a run's page, as Airflow makes it (``[api] base_url`` has to be set for it)."""
    from airflow.providers.common.compat.sdk import conf

    base = conf.get("api", "base_url", fallback="http://localhost:8080/")
    return f"{base.rstrip('/')}/dags/{quote(dag_id)}/runs/{quote(run_id)}"


def _task_instance(context: Mapping[str, Any]) -> Any:
    return context.get("ti") or context.get("task_instance")


def _task_incident(context: Mapping[str, Any], ti: Any, *, kind: Kind) -> Incident:
    dag_id, run_id = str(ti.dag_id), str(ti.run_id)
    try_number, map_index = getattr(ti, "try_number", None), getattr(ti, "map_index", None)
    error_type, error_message, stack_trace = _error(context.get("exception"))
    return Incident(
        kind=kind,
        dag_id=dag_id,
        run_id=run_id,
        instance=str(getattr(ti, "id", "")),
        task_id=str(ti.task_id),
        map_index=map_index if map_index is not None and map_index >= 0 else None,
        try_number=try_number,
        tries=_tries(ti, try_number),
        logical_date=_text(context.get("logical_date")),
        error_type=error_type,
        error_message=error_message,
        stack_trace=stack_trace,
        reason=_text(context.get("reason")),
        log_url=getattr(ti, "log_url", None),
        run_url=run_url(dag_id, run_id),
        environment=_environment(),
    )


def _tries(ti: Any, try_number: int | None) -> int | None:
    """Return the number of tries; the dag-processor's reduced task instance may lack it or have it wrong."""
    retries = getattr(ti, "max_tries", None)
    if retries is None or try_number is None or retries + 1 < try_number:
        return None
    return int(retries) + 1


def _error(exception: object) -> tuple[str | None, str | None, str | None]:
    if isinstance(exception, BaseException):
        trace = "".join(traceback.format_exception(exception)).rstrip()
        cause = exception.__cause__
        # Our operators wrap the engine's error to tell Airflow what to do; people want the error itself.
        told = cause if isinstance(cause, BatchkitError) else exception
        return type(told).__qualname__, str(told), trace
    # Some of Airflow's own paths hand over a text instead of an exception.
    return None, _text(exception), None


def _environment() -> str | None:
    from airflow.providers.common.compat.sdk import conf

    return _text(conf.get(SECTION, "environment_name", fallback=""))


def _text(fact: object) -> str | None:
    if fact is None or fact == "":
        return None
    return fact.isoformat() if isinstance(fact, datetime) else str(fact)
