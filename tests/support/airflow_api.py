"""What the tests ask a running Airflow through its REST API: runs, tasks, their state, logs and signals."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from tests.support.processes import ServerError, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

FINISHED = ("success", "failed")


class AirflowApi:
    """
    The REST API of an Airflow whose users are all admins.

    :param url: base of the API server, without ``/api``
    """

    def __init__(self, url: str) -> None:
        self.url = url
        # Two changes at once lock each other out of SQLite, see AirflowStandalone.
        self._changing = threading.Lock()

    def request(self, method: str, path: str, body: object = None, *, timeout: float = 30) -> Any:
        """
        Send one request and return the decoded answer.

        :param path: what follows ``/api/v2``, with its leading slash
        :param timeout: seconds until a connection or read counts as failed
        :raises ServerError: the answer's status is 400 or more; the message holds what Airflow said
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        url = f"{self.url}/api/v2{path}"
        request = urllib.request.Request(url, data=data, method=method, headers=headers)  # noqa: S310 - ours
        in_turn = contextlib.nullcontext() if method == "GET" else self._changing
        try:
            with in_turn, urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
                text = answer.read()
        except urllib.error.HTTPError as refused:
            with refused:
                raise ServerError(f"{method} {path}: {refused.code} {refused.read().decode()}") from None
        return json.loads(text) if text else None

    def wait_for_dag(self, dag_id: str, *, seconds: float = 60) -> None:
        """Wait until a DAG is parsed; say why where its file cannot be imported."""

        def parsed() -> bool:
            try:
                self.request("GET", f"/dags/{dag_id}")
            except ServerError:
                errors = self.request("GET", "/importErrors")["import_errors"]
                if errors:
                    raise ServerError("\n".join(error["stack_trace"] for error in errors)) from None
                return False
            return True

        wait_until(parsed, seconds=seconds, what=f"DAG {dag_id}", every=0.5)

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run a DAG."""
        self.request("PATCH", f"/dags/{dag_id}?update_mask=is_paused", {"is_paused": False})

    def trigger(
        self,
        dag_id: str,
        *,
        logical_date: datetime | None = None,
        conf: Mapping[str, object] | None = None,
    ) -> Run:
        """Unpause a DAG and start one manual run of it, by default one without a logical date."""
        self.wait_for_dag(dag_id)
        self.unpause(dag_id)
        date = logical_date.isoformat() if logical_date else None
        body = {"logical_date": date, "conf": dict(conf or {})}
        return Run(self, dag_id, self.request("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def runs(self, dag_id: str) -> list[Run]:
        """Return all runs of a DAG, the earliest first."""
        found = self.request("GET", f"/dags/{dag_id}/dagRuns?order_by=run_after&limit=100")["dag_runs"]
        return [Run(self, dag_id, run["dag_run_id"]) for run in found]

    def backfill(
        self,
        dag_id: str,
        *,
        first: datetime,
        last: datetime,
        reprocess: str = "none",
        runs_at_once: int = 10,
        conf: Mapping[str, object] | None = None,
    ) -> list[Run]:
        """
        Start a backfill of every data interval from the first to the last and return its runs.

        :param reprocess: what to do with runs that exist: ``none``, ``failed`` or ``completed``
        :param conf: given to each of the runs
        """
        self.wait_for_dag(dag_id)
        self.unpause(dag_id)
        body = {
            "dag_id": dag_id,
            "from_date": first.isoformat(),
            "to_date": last.isoformat(),
            "reprocess_behavior": reprocess,
            "max_active_runs": runs_at_once,
            "dag_run_conf": dict(conf or {}),
        }

        def created() -> bool:
            try:
                self.request("POST", "/backfills", body)
            except ServerError as refused:
                # On SQLite the scheduler may be writing just then; nothing was made.
                if "Database is locked" in str(refused):
                    return False
                raise
            return True

        wait_until(created, seconds=60, what=f"a backfill of {dag_id}", every=0.5)
        found = self.request("GET", f"/dags/{dag_id}/dagRuns?run_type=backfill&order_by=run_after")[
            "dag_runs"
        ]
        return [Run(self, dag_id, run["dag_run_id"]) for run in found]

    def put_connection(self, conn_id: str, connection: str) -> None:
        """Keep a connection, given as the JSON text that ``AIRFLOW_CONN_…`` variables hold."""
        fields = json.loads(connection)
        if "extra" in fields:
            fields["extra"] = json.dumps(fields["extra"])
        action = {"action": "create", "action_on_existence": "overwrite"}
        body = {"actions": [action | {"entities": [{"connection_id": conn_id, **fields}]}]}
        self.request("PATCH", "/connections", body)


@dataclass(frozen=True)
class Run:
    """One run of a DAG."""

    api: AirflowApi
    dag_id: str
    run_id: str

    @property
    def path(self) -> str:
        """Where the API keeps this run."""
        return f"/dags/{self.dag_id}/dagRuns/{urllib.parse.quote(self.run_id, safe='')}"

    def state(self) -> str:
        """Return the run's state as it is now."""
        return str(self.api.request("GET", self.path)["state"])

    def wait(self, *states: str, seconds: float = 120) -> str:
        """
        Wait until the run is in one of some states, by default finished, and return the state.

        :raises ServerError: time is up, or the run finished in another state; tells the tasks' states
        """
        wanted = states or FINISHED
        seen: list[str] = [""]

        def reached() -> bool:
            seen[0] = self.state()
            return seen[0] in {*wanted, *FINISHED}

        try:
            wait_until(reached, seconds=seconds, what=f"{self.run_id} to be {' or '.join(wanted)}", every=0.3)
        except ServerError as error:
            raise ServerError(f"{error}; it is {seen[0]}, its tasks: {self._task_states()}") from None
        if seen[0] not in wanted:
            raise ServerError(f"{self.run_id} ended {seen[0]}, its tasks: {self._task_states()}")
        return seen[0]

    def task(self, task_id: str, *, map_index: int = -1) -> Task:
        """Return one task of this run."""
        return Task(self, task_id, map_index)

    def tasks(self) -> list[dict[str, Any]]:
        """Return what the API says of all task instances of this run."""
        found: list[dict[str, Any]] = self.api.request("GET", f"{self.path}/taskInstances")["task_instances"]
        return found

    def _task_states(self) -> dict[str, str]:
        return {task["task_id"]: task["state"] for task in self.tasks()}


@dataclass(frozen=True)
class Task:
    """One task instance of a run, whatever its try."""

    run: Run
    task_id: str
    map_index: int

    @property
    def path(self) -> str:
        """Where the API keeps this task instance."""
        return f"{self.run.path}/taskInstances/{self.task_id}"

    def get(self) -> dict[str, Any]:
        """Return what the API says of it: ``state``, ``try_number``, ``max_tries``, ``id``, …."""
        where = self.path if self.map_index < 0 else f"{self.path}/{self.map_index}"
        answer: dict[str, Any] = self.run.api.request("GET", where)
        return answer

    def state(self) -> str | None:
        """Return its state as it is now; None before it is scheduled."""
        state: str | None = self.get()["state"]
        return state

    def wait(self, *states: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until it is in one of some states and return what the API then says of it."""
        seen: list[dict[str, Any]] = [{}]

        def reached() -> bool:
            seen[0] = self.get()
            return seen[0]["state"] in states

        try:
            wait_until(
                reached, seconds=seconds, what=f"{self.task_id} to be {' or '.join(states)}", every=0.2
            )
        except ServerError as error:
            raise ServerError(f"{error}; it is {seen[0].get('state')}; its log:\n{self.log()}") from None
        return seen[0]

    def tries(self) -> list[dict[str, Any]]:
        """Return what the API says of each try, the first one first."""
        where = f"{self.path}/tries" if self.map_index < 0 else f"{self.path}/{self.map_index}/tries"
        found: list[dict[str, Any]] = self.run.api.request("GET", where)["task_instances"]
        return found

    def process(self, *, seconds: float = 30) -> psutil.Process:
        """Wait until the process runs in which the task's code runs, and return it."""
        found: list[psutil.Process] = []

        def runs() -> bool:
            # The task's own process names itself so; its supervisor bears another title.
            title = f"airflow worker -- {self.get()['id']}"
            found[:] = [p for p in psutil.process_iter(["cmdline"]) if _title(p) == title]
            return bool(found)

        wait_until(runs, seconds=seconds, what=f"the process of {self.task_id}")
        return found[0]

    def clear(self) -> None:
        """Clear it as the UI does, so that it runs again."""
        wanted = self.task_id if self.map_index < 0 else [self.task_id, self.map_index]
        body = {"dry_run": False, "only_failed": False, "dag_run_id": self.run.run_id, "task_ids": [wanted]}
        self.run.api.request("POST", f"/dags/{self.run.dag_id}/clearTaskInstances", body)

    def mark(self, state: str) -> None:
        """Mark it ``failed`` or ``success`` as the UI does."""
        where = self.path if self.map_index < 0 else f"{self.path}/{self.map_index}"
        self.run.api.request("PATCH", where, {"new_state": state})

    def store(self) -> dict[str, Any]:
        """Return all that is in its state store, by key."""
        answer = self.run.api.request("GET", f"{self.path}/state-store?map_index={self.map_index}")
        return {entry["key"]: entry["value"] for entry in answer["task_state_store"]}

    def put_in_store(self, key: str, value: object) -> None:
        """Put one value into its state store, as a person does in the UI."""
        where = f"{self.path}/state-store/{key}?map_index={self.map_index}"
        self.run.api.request("PUT", where, {"value": value})

    def xcoms(self) -> dict[str, Any]:
        """Return all XComs that it pushed, by key."""
        where = f"{self.path}/xcomEntries"
        entries = self.run.api.request("GET", f"{where}?map_index={self.map_index}")["xcom_entries"]
        values = {}
        for entry in entries:
            query = f"map_index={self.map_index}&deserialize=true"
            values[entry["key"]] = self.run.api.request("GET", f"{where}/{entry['key']}?{query}")["value"]
        return values

    def log(self, *, try_number: int | None = None) -> str:
        """Return the log of one try, by default the latest, one event a line."""
        number = try_number or max(self.get()["try_number"], 1)
        where = f"{self.path}/logs/{number}?full_content=true&map_index={self.map_index}"
        content = self.run.api.request("GET", where)["content"]
        return "\n".join(line if isinstance(line, str) else _as_text(line) for line in content)


def _title(process: psutil.Process) -> str:
    return " ".join(process.info["cmdline"] or []).strip()


def _as_text(event: Mapping[str, Any]) -> str:
    """Return one structured log event as a line, with what it says besides where it comes from."""
    return " ".join([str(event.get("event", "")), *(f"{k}={event[k]}" for k in event if k not in _PLAIN)])


_PLACE = {"dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id"}
_PLAIN = {"event", "timestamp", "level", "logger", "filename", "lineno"} | _PLACE
