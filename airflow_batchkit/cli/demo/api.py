"""The few questions that the demo asks Airflow's REST API."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from airflow_batchkit.engine.exceptions import PermanentError

_TIMEOUT = 30.0
# A proxy of the user's environment must not stand between us and a server on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class AirflowApi:
    """The REST API of an Airflow whose users are all admins.

    :param url: base of the API server, without ``/api``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._token = ""

    def knows(self, dag_id: str) -> bool:
        """Tell whether the server answers and has the DAG.

        :raises PermanentError: the DAG file cannot be imported.
        """
        try:
            self._token = self._token or self._request("GET", "/auth/token")["access_token"]
            self._request("GET", f"/api/v2/dags/{dag_id}")
        except urllib.error.HTTPError as error:
            if not self._token:
                return False
            with error:
                self._refuse_broken_dag()
            return False
        except OSError:
            return False
        return True

    def trigger(self, dag_id: str, run_id: str) -> None:
        """Unpause the DAG and start a run."""
        self._request("PATCH", f"/api/v2/dags/{dag_id}?update_mask=is_paused", {"is_paused": False})
        run: dict[str, object] = {"dag_run_id": run_id, "logical_date": None, "conf": {}}
        self._request("POST", f"/api/v2/dags/{dag_id}/dagRuns", run)

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        return str(self._request("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Return what is known of a task instance: ``state``, ``try_number``, ``id``, …."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        found: dict[str, Any] = self._request("GET", path)
        return found

    def state_store(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Return what a task keeps in its state store, by key."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/state-store"
        return {entry["key"]: entry["value"] for entry in self._request("GET", path)["task_state_store"]}

    def returned(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Return a task's return value."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        found = self._request("GET", f"{path}?deserialize=true")["value"]
        value: dict[str, Any] = json.loads(found) if isinstance(found, str) else found
        return value

    def _refuse_broken_dag(self) -> None:
        errors = self._request("GET", "/api/v2/importErrors")["import_errors"]
        if errors:
            raise PermanentError(f"the demo's DAG file cannot be imported:\n{errors[0]['stack_trace']}")

    def _request(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(  # noqa: S310  # http:// to a server that we started
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
        )
        with _opener.open(request, timeout=_TIMEOUT) as answer:
            return json.load(answer)
