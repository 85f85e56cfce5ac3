"""The servers of a soak, the sources in them, and proxies that break what goes through them."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from airflow_batchkit.engine.policies import Timeouts
from tests.support.connections import ServerConnections
from tests.support.elasticsearch import ElasticsearchEndpoint, ElasticsearchServer
from tests.support.fault_proxy import Fault, Status, fault_proxy
from tests.support.http_faults import Breakage
from tests.support.postgres import PostgresServer
from tests.support.s3 import moto_server
from tests.support.s3_proxy import Fault as S3Fault, Refusal, s3_proxy

if TYPE_CHECKING:
    from tests.support.soak_jobs import SoakJob, SourceKind

_ON_THE_WAY: tuple[Breakage, ...] = (
    "away",
    "reset",
    "apply and reset",
    "reset in the head",
    "truncate",
    "truncate in chunks",
    "truncate without length",
    "twice",
    "twice, first",
    "swap",
    "previous",
)
_BROKEN_SEARCH: tuple[Fault, ...] = (*_ON_THE_WAY, Status(503), Status(429), Status(502))
_BROKEN_STORE: tuple[S3Fault, ...] = (
    *_ON_THE_WAY,
    Refusal(503, "SlowDown"),
    Refusal(500, "InternalError"),
)


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Where everything is.

    :param folder: for checkpoints, logs, SQLite databases and targets.
    :param elasticsearch_url: of the Elasticsearch.
    :param s3: ``endpoint_url``, ``access_key``, ``secret_key``, ``region`` and ``bucket``.
    :param postgres: as its endpoint takes it.
    """

    folder: str
    elasticsearch_url: str
    s3: dict[str, str]
    postgres: dict[str, Any] = field(default_factory=dict)

    def connections(self, job: SoakJob) -> ServerConnections:
        """Return the connections of a job."""
        return ServerConnections(
            elasticsearch_url=self.elasticsearch_url,
            s3=self.s3,
            sqlite_path=str(self.sqlite_path(job)),
            postgres=self.postgres if job.source == "postgres" else {},
        )

    @property
    def sources(self) -> tuple[SourceKind, ...]:
        """The kinds of sources that are there."""
        return ("sqlite", "postgres", "elasticsearch") if self.postgres else ("sqlite", "elasticsearch")

    def job_folder(self, job: SoakJob) -> Path:
        """Return a job's own folder."""
        return Path(self.folder) / job.name

    def sqlite_path(self, job: SoakJob) -> Path:
        """Return where a job's database would be."""
        return self.job_folder(job) / "source.db"

    def url(self, job: SoakJob) -> str:
        """Return a job's target."""
        if job.target == "s3":
            return f"s3://{self.s3['bucket']}/{job.name}"
        return f"file://{self.job_folder(job)}/target"

    def fill(self, job: SoakJob, run: int) -> None:
        """Make the source of a run, in place of the one of the run before."""
        if job.source == "elasticsearch":
            self._fill_index(job, run)
        else:
            self._fill_table(job, run)

    def empty(self, job: SoakJob) -> None:
        """Remove a job's source."""
        if job.source == "elasticsearch":
            self.elasticsearch.request("DELETE", f"/{job.name}?ignore_unavailable=true")
        elif job.source == "postgres":
            with self._postgres() as connection:
                connection.execute(f"DROP TABLE IF EXISTS {job.name}")

    def cut_sessions(self) -> None:
        """End every other session of the database, as an administrator does."""
        with self._postgres() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    @property
    def elasticsearch(self) -> ElasticsearchEndpoint:
        """The Elasticsearch, to talk to past every client."""
        return ElasticsearchEndpoint(self.elasticsearch_url)

    def _fill_index(self, job: SoakJob, run: int) -> None:
        self.empty(job)
        settings = {"number_of_shards": job.shards, "number_of_replicas": 0}
        mappings = {"dynamic": False}
        server = self.elasticsearch
        server.request("PUT", f"/{job.name}", {"settings": settings, "mappings": mappings})
        lines = b"".join(
            b'{"index":{"_id":"%d"}}\n%b\n' % (number, job.body(run, number))
            for number in range(job.runs[run])
        )
        if lines:
            answer = server.request("POST", f"/{job.name}/_bulk?refresh=true", lines)
            assert not answer["errors"]

    def _fill_table(self, job: SoakJob, run: int) -> None:
        rows = [(number, job.text(run, number)) for number in range(job.runs[run])]
        table = (
            f"DROP TABLE IF EXISTS {job.name}",
            f"CREATE TABLE {job.name} (number INTEGER PRIMARY KEY, text TEXT NOT NULL)",
        )
        if job.source == "postgres":
            insert = f"INSERT INTO {job.name} VALUES (%s, %s)"  # noqa: S608  # the soak's own name
            with self._postgres() as connection, connection.cursor() as cursor:
                for statement in table:
                    cursor.execute(statement)
                cursor.executemany(insert, rows)
            return
        database = sqlite3.connect(self.sqlite_path(job))
        with database:
            for statement in table:
                database.execute(statement)
            database.executemany(f"INSERT INTO {job.name} VALUES (?, ?)", rows)  # noqa: S608  # likewise
        database.close()

    def _postgres(self) -> Any:
        from airflow_batchkit.connectors.sql.postgres import endpoint

        connection = endpoint.connect(endpoint.PostgresEndpoint(**self.postgres), Timeouts())
        connection.autocommit = True
        return connection


class _Breaker:
    """What the proxies do at the moment."""

    def __init__(self) -> None:
        self.broken = 0
        self._random = Random()
        self._share = 0.0
        self._passing = -1

    def obey(self, order: dict[str, Any]) -> None:
        """Take an order: ``seed``, and ``share`` of the requests to break or how many still pass."""
        self.broken = 0
        self._random = Random(order["seed"])
        self._share = order.get("share", 0.0)
        self._passing = order.get("passing", -1)

    def search(self, path: str, number: int) -> Fault:
        """Decide about a request to Elasticsearch."""
        del path, number
        found: Fault = self._fault(_BROKEN_SEARCH)
        return found

    def store(self, method: str, path: str) -> S3Fault:
        """Decide about a request to the object store."""
        del method, path
        found: S3Fault = self._fault(_BROKEN_STORE)
        return found

    def _fault(self, faults: tuple[Any, ...]) -> Any:
        if self._passing == 0:
            self.broken += 1
            return "reset"
        self._passing -= self._passing > 0
        if self._random.random() >= self._share:
            return None
        self.broken += 1
        return self._random.choice(faults)


class Proxies:
    """A process with a proxy before each server; the soak itself has no threads, so that it can fork.

    :param behind: the servers as a leg reaches them through the proxies.
    """

    def __init__(self, behind: Servers, control: socket.socket) -> None:
        self.behind = behind
        self._control = control.makefile("rw")

    def order(self, **order: Any) -> int:
        """Say what to do from now on; return how many requests were broken since the order before."""
        self._control.write(json.dumps({"seed": 0, **order}) + "\n")
        self._control.flush()
        return int(self._control.readline())


@contextmanager
def proxies(servers: Servers) -> Iterator[Proxies]:
    """Run the proxies for a ``with`` block."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        status = 1
        try:
            ours.close()
            _serve(servers, theirs)
            status = 0
        finally:
            os._exit(status)
    theirs.close()
    try:
        urls = json.loads(ours.recv(4096))
        s3 = {**servers.s3, "endpoint_url": urls["s3"]}
        behind = replace(servers, elasticsearch_url=urls["elasticsearch"], s3=s3)
        yield Proxies(behind, ours)
    finally:
        ours.close()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _serve(servers: Servers, control: socket.socket) -> None:
    breaker = _Breaker()
    with (
        fault_proxy(servers.elasticsearch_url, breaker.search) as (search, _),
        s3_proxy(servers.s3["endpoint_url"], breaker.store) as store,
    ):
        control.sendall(json.dumps({"elasticsearch": search, "s3": store}).encode())
        with control.makefile("rw") as orders:
            for order in iter(partial(orders.readline), ""):
                broken = breaker.broken
                breaker.obey(json.loads(order))
                orders.write(f"{broken}\n")
                orders.flush()


@contextmanager
def own_servers(folder: Path) -> Iterator[tuple[Servers, dict[str, Callable[[], Callable[[], None]]]]]:
    """Start servers for a ``with`` block; give them, and how to kill and start those that keep their data."""
    with ExitStack() as stack:
        s3 = stack.enter_context(moto_server(folder))
        with s3.client() as client:
            client.create_bucket(Bucket="soak")
        postgres, search = PostgresServer(), ElasticsearchServer()
        for server in (postgres, search):
            stack.callback(server.stop)
            server.start()

        def killed(server: PostgresServer | ElasticsearchServer) -> Callable[[], None]:
            server.kill()
            return server.start

        endpoint = postgres.endpoint()
        servers = Servers(
            folder=str(folder),
            elasticsearch_url=search.url,
            s3={**asdict(s3), "bucket": "soak"},
            postgres={name: getattr(endpoint, name) for name in ("host", "port", "database", "user")},
        )
        yield servers, {"postgres": partial(killed, postgres), "elasticsearch": partial(killed, search)}
