"""An Airflow for the tests of what asks its REST API: captured answers of 3.3.2, served on loopback."""

from __future__ import annotations

import json
import ssl
import threading
from collections import deque
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import parse_qs, unquote, urlsplit

from typing_extensions import override

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.certificates import ServerCertificate

TOKEN = "a-token-of-airflow"
# As GET /api/v2/dags answers for a DAG with schedule="@daily"; what nobody reads is left out.
_DAG: dict[str, Any] = {
    "dag_id": "orders",
    "is_paused": False,
    "is_stale": False,
    "bundle_name": "dags-folder",
    "relative_fileloc": "orders.py",
    "timetable_summary": "0 0 * * *",
    "timetable_periodic": True,
    "tags": [{"name": "nightly", "dag_id": "orders", "dag_display_name": "orders"}],
    "max_active_runs": 16,
    "has_import_errors": False,
    "next_dagrun_data_interval_start": "2026-11-25T00:00:00Z",
    "next_dagrun_data_interval_end": "2026-11-25T00:00:00Z",
    "next_dagrun_run_after": "2026-11-25T00:00:00Z",
    "owners": ["data"],
}
# As GET /api/v2/dags/orders/dagRuns answers.
_RUN: dict[str, Any] = {
    "dag_run_id": "scheduled__2026-11-24T00:00:00+00:00",
    "dag_id": "orders",
    "logical_date": "2026-11-24T00:00:00Z",
    "queued_at": "2026-11-24T00:00:01.584912Z",
    "start_date": "2026-11-24T00:00:02.798591Z",
    "end_date": "2026-11-24T00:00:42.392993Z",
    "run_after": "2026-11-24T00:00:00Z",
    "run_type": "scheduled",
    "state": "success",
}
_BEAT = "2026-11-24T02:53:24.479394+00:00"


class AirflowAnswers:
    """
    A loopback Airflow; change its ``dags``, ``runs``, … and ask again. Start it as a context manager.

    :param certificate: speak https with it
    :param folder: where certificate and key are put for that
    """

    def __init__(self, *, certificate: ServerCertificate | None = None, folder: Path | None = None) -> None:
        self.dags: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.tasks: list[dict[str, Any]] = []
        self.import_errors: list[dict[str, Any]] = []
        self.health: dict[str, Any] = {
            "metadatabase": {"status": "healthy"},
            "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": _BEAT},
            "triggerer": {"status": "healthy", "latest_triggerer_heartbeat": _BEAT},
            "dag_processor": {"status": "healthy", "latest_dag_processor_heartbeat": _BEAT},
        }
        self.token: str | None = None
        self.page = 100
        self.asked: list[str] = []
        # (status, headers, body) to answer next, instead of the truth
        self.planned: deque[tuple[int, dict[str, str], bytes]] = deque()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._scheme = "http"
        if certificate is not None and folder is not None:
            self._speak_tls(certificate, folder)
        self._http.airflow = self  # type: ignore[attr-defined] # how http.server hands state to its handlers
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=5)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self._scheme}://127.0.0.1:{self._http.server_port}"

    def add_dag(self, dag_id: str = "orders", *, tags: tuple[str, ...] = ("nightly",), **fields: Any) -> None:
        """Add a DAG like the captured one, with some fields changed."""
        self.dags.append({**_DAG, "dag_id": dag_id, "tags": [{"name": tag} for tag in tags], **fields})

    def add_run(self, dag_id: str = "orders", **fields: Any) -> None:
        """Add a run like the captured one, with some fields changed; times may be datetimes."""
        texts = {n: v.isoformat() if isinstance(v, datetime) else v for n, v in fields.items()}
        run = {**_RUN, "dag_id": dag_id, **texts}
        if "run_after" in texts and "dag_run_id" not in texts:
            run["dag_run_id"] = f"{run['run_type']}__{texts['run_after']}"
        self.runs.append(run)

    def answer(self, path: str, query: dict[str, list[str]]) -> dict[str, Any] | None:
        """Return what the API answers; None for 404."""
        parts = [unquote(part) for part in path.removeprefix("/api/v2/").split("/")]
        if parts == ["monitor", "health"]:
            return self.health
        known = {"~", *(dag["dag_id"] for dag in self.dags)}
        if len(parts) > 1 and parts[1] not in known:
            return None
        if parts[0] == "dags" and len(parts) == 2:
            return next(dag for dag in self.dags if dag["dag_id"] == parts[1])
        tasks = [task for task in self.tasks if task["state"] in query.get("state", ())]
        lists = {
            "dags": ("dags", [dag for dag in self.dags if not dag.get("is_stale")]),
            "importErrors": ("import_errors", self.import_errors),
            "taskInstances": ("task_instances", tasks),
            "dagRuns": ("dag_runs", self._runs(parts[1], query) if len(parts) > 1 else []),
        }
        return self._listed(*lists[parts[-1]], query) if parts[-1] in lists else None

    def _speak_tls(self, certificate: ServerCertificate, folder: Path) -> None:
        (folder / "server.pem").write_bytes(certificate.certificate)
        (folder / "server.key").write_bytes(certificate.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self._scheme = "https"

    def _runs(self, dag_id: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        wanted = [
            run
            for run in self.runs
            if dag_id in {"~", run["dag_id"]}
            and run["state"] in query.get("state", [run["state"]])
            and run["run_type"] in query.get("run_type", [run["run_type"]])
        ]
        (order,) = query.get("order_by", ["run_after"])
        field = order.removeprefix("-")

        def place(run: dict[str, Any]) -> datetime:
            return datetime.fromisoformat(run[field]) if run[field] else datetime.min.replace(tzinfo=UTC)

        return sorted(wanted, key=place, reverse=order.startswith("-"))

    def _listed(
        self, name: str, entries: list[dict[str, Any]], query: dict[str, list[str]]
    ) -> dict[str, Any]:
        limit, offset = (int(query.get(what, ["0"])[0]) for what in ("limit", "offset"))
        page = entries[offset : offset + min(limit or self.page, self.page)]
        return {name: page, "total_entries": len(entries)}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what was asked is kept."""

    def do_GET(self) -> None:
        """Answer from what the test put there."""
        self._airflow.asked.append(self.path)
        if self._said_as_planned():
            return
        authorization = self.headers.get("Authorization")
        if self._airflow.token is not None and authorization != f"Bearer {self._airflow.token}":
            self._send(401, b'{"detail":"Not authenticated"}')
            return
        parts = urlsplit(self.path)
        found = self._airflow.answer(parts.path, parse_qs(parts.query))
        if found is None:
            self._send(404, b'{"error":"API route not found"}')
            return
        self._send(200, json.dumps(found).encode())

    def do_POST(self) -> None:
        """Issue a token for the one user that there is."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        self._airflow.asked.append(self.path)
        if self._said_as_planned():
            return
        known = self.path == "/auth/token" and body == {"username": "watch", "password": "w4tch"}
        self._send(201 if known else 401, json.dumps({"access_token": TOKEN} if known else {}).encode())

    @property
    def _airflow(self) -> AirflowAnswers:
        return cast("AirflowAnswers", self.server.airflow)  # type: ignore[attr-defined] # set above

    def _said_as_planned(self) -> bool:
        if not self._airflow.planned:
            return False
        status, headers, body = self._airflow.planned.popleft()
        self._send(status, body, headers)
        return True

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
