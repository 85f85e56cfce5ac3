"""What a check sees of Airflow: the watched DAGs with their runs, the files that do not import, the parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from airflow_batchkit.watching.api import AirflowApi, NotThereError, UnreachableError
from airflow_batchkit.watching.expectations import Watched

CONTINUOUS = "@continuous"
_PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSight:
    """One run of a DAG; what has not happened yet is None."""

    dag_id: str
    run_id: str
    run_type: str
    state: str
    run_after: datetime
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DagSight:
    """One watched DAG.

    :param watched: what is expected of it.
    :param file: its file, as Airflow names it in import errors too.
    :param timetable: Airflow's short text of it; None for a DAG without one.
    :param next_run_after: when Airflow means to create the next run; None where no timetable says so.
    :param max_active: how many of its runs may run at once; None where nothing limits them.
    :param active: its runs that are queued or running.
    :param waiting: its task instances that wait for a worker: run, task, and since when.
    :param last_finished: the run that ended last, in success or not.
    :param last_success: the run that ended in success last.
    :param last_scheduled: the newest run that the timetable made.
    """

    dag_id: str
    watched: Watched
    file: tuple[str | None, str | None] = (None, None)
    is_paused: bool = False
    timetable: str | None = None
    next_run_after: datetime | None = None
    max_active: int | None = None
    active: Sequence[RunSight] = ()
    waiting: Sequence[tuple[str, str, datetime]] = ()
    last_finished: RunSight | None = None
    last_success: RunSight | None = None
    last_scheduled: RunSight | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportErrorSight:
    """One file that Airflow cannot import.

    :param file: bundle and path.
    """

    file: tuple[str | None, str | None]
    stack_trace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Airflow at one moment.

    :param dags: the watched DAGs, by id.
    :param gone: ids that are missing: named in ``Watched.dags`` or seen by an earlier check.
    :param import_errors: of all files.
    :param down: parts of Airflow that are not healthy, with their last heartbeat.
    """

    dags: Mapping[str, DagSight] = field(default_factory=dict)
    gone: Sequence[str] = ()
    import_errors: Sequence[ImportErrorSight] = ()
    down: Mapping[str, str | None] = field(default_factory=dict)


def look(api: AirflowApi, watched: Sequence[Watched], *, known: Iterable[str]) -> Sight:
    """Ask Airflow for everything that a check needs: a few requests, and two or three for each watched DAG.

    :param api: of the Airflow.
    :param watched: what is expected; a DAG that several of them mean belongs to the first.
    :param known: the DAGs that an earlier check saw.
    :raises UnreachableError: Airflow does not answer.
    :raises RefusedError: it does not let us in.
    """
    try:
        return _look(api, watched, known)
    except NotThereError as error:
        raise UnreachableError(f"{error}: what answers is not Airflow's API") from error
    except (KeyError, TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {error}"
        raise UnreachableError(f"{api.endpoint.base}: an answer cannot be read ({said})") from error


def _look(api: AirflowApi, watched: Sequence[Watched], known: Iterable[str]) -> Sight:
    health = api.get("/monitor/health")
    if not isinstance(health.get("scheduler"), dict):
        raise UnreachableError(f"{api.endpoint.base}: what answers is not Airflow's API")
    # The DAGs before their runs: what is announced in between is not missing.
    listing = {"exclude_stale": "true", "order_by": "dag_id"}
    found = {dag["dag_id"]: dag for dag in api.pages("/dags", "dags", listing)}
    named = [dag_id for expected in watched for dag_id in expected.ids]
    gone = []
    for dag_id in sorted({*named, *known} - set(found)):
        # Asked for by name: a list that changes between two of its pages leaves one out.
        dag = _asked_for(api, dag_id)
        if dag is None:
            gone.append(dag_id)
        else:
            found[dag_id] = dag
    active, waiting = _active(api), _waiting(api)
    dags: dict[str, DagSight] = {}
    for dag_id, dag in found.items():
        meant = _first_meaning(watched, dag)
        if meant is not None:
            dags[dag_id] = _dag(
                api, dag, meant, active=active.get(dag_id, ()), waiting=waiting.get(dag_id, ())
            )
    return Sight(
        dags=dags,
        gone=gone,
        import_errors=[_import_error(error) for error in api.pages("/importErrors", "import_errors")],
        down=_down(health),
    )


def _asked_for(api: AirflowApi, dag_id: str) -> dict[str, Any] | None:
    try:
        dag = api.get(f"/dags/{quote(dag_id, safe='')}")
    except NotThereError:
        return None
    return None if dag["is_stale"] else dag


def _first_meaning(watched: Sequence[Watched], dag: Mapping[str, Any]) -> Watched | None:
    tags = [tag["name"] for tag in dag.get("tags") or ()]
    for expected in watched:
        if expected.means(dag["dag_id"], tags=tags, owners=dag.get("owners") or ()):
            return expected
    return None


def _dag(
    api: AirflowApi,
    dag: Mapping[str, Any],
    watched: Watched,
    *,
    active: Sequence[RunSight],
    waiting: Sequence[tuple[str, str, datetime]],
) -> DagSight:
    dag_id = dag["dag_id"]
    next_run_after = _instant(dag.get("next_dagrun_run_after"))
    finished = _newest(api, dag_id, {"state": ["success", "failed"], "order_by": "-end_date"})
    succeeded = finished
    if finished is not None and finished.state != "success":
        succeeded = _newest(api, dag_id, {"state": "success", "order_by": "-end_date"})
    scheduled = None
    if next_run_after is not None:
        scheduled = _newest(api, dag_id, {"run_type": "scheduled", "order_by": "-run_after"})
    return DagSight(
        dag_id=dag_id,
        watched=watched,
        file=(dag.get("bundle_name"), dag.get("relative_fileloc")),
        is_paused=bool(dag.get("is_paused")),
        timetable=dag.get("timetable_summary"),
        next_run_after=next_run_after,
        max_active=dag.get("max_active_runs"),
        active=active,
        waiting=waiting,
        last_finished=finished,
        last_success=succeeded,
        last_scheduled=scheduled,
    )


def _newest(api: AirflowApi, dag_id: str, wanted: Mapping[str, object]) -> RunSight | None:
    try:
        answer = api.get(f"/dags/{quote(dag_id, safe='')}/dagRuns", {**wanted, "limit": 1})
    except NotThereError:
        # Removed since it was listed; the next check does not list it any more.
        return None
    runs = answer.get("dag_runs") or []
    return _run(runs[0]) if runs else None


def _active(api: AirflowApi) -> dict[str, list[RunSight]]:
    found: dict[str, list[RunSight]] = {}
    for run in api.pages("/dags/~/dagRuns", "dag_runs", {"state": ["queued", "running"]}):
        found.setdefault(run["dag_id"], []).append(_run(run))
    return found


def _waiting(api: AirflowApi) -> dict[str, list[tuple[str, str, datetime]]]:
    found: dict[str, list[tuple[str, str, datetime]]] = {}
    # Not those in state "scheduled": a DAG's own limits, or a pool's, may keep these for hours.
    for task in api.pages("/dags/~/dagRuns/~/taskInstances", "task_instances", {"state": "queued"}):
        since = _instant(task.get("queued_when"))
        if since is not None:
            found.setdefault(task["dag_id"], []).append((task["dag_run_id"], task["task_id"], since))
    return found


def _run(run: Mapping[str, Any]) -> RunSight:
    run_after = _instant(run["run_after"])
    if run_after is None:
        raise UnreachableError("what answers is not Airflow's API: a run has no run_after")
    return RunSight(
        dag_id=run["dag_id"],
        run_id=run["dag_run_id"],
        run_type=run["run_type"],
        state=run["state"],
        run_after=run_after,
        queued_at=_instant(run.get("queued_at")),
        started_at=_instant(run.get("start_date")),
        ended_at=_instant(run.get("end_date")),
    )


def _import_error(error: Mapping[str, Any]) -> ImportErrorSight:
    return ImportErrorSight(
        file=(error.get("bundle_name"), error.get("filename")),
        stack_trace=str(error.get("stack_trace") or ""),
    )


def _down(health: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the parts that are not healthy; a part that this Airflow never had says so by null."""
    down: dict[str, str | None] = {}
    for part in _PARTS:
        said = health.get(part) or {}
        if said.get("status") not in {"healthy", None}:
            down[part] = said.get(f"latest_{part}_heartbeat")
    return down


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
