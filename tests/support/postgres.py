"""A real PostgreSQL for the tests: on loopback, on a free port, its data in a temporary folder."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from airflow_batchkit.connectors.sql.postgres.endpoint import PostgresEndpoint, connect
from airflow_batchkit.engine.policies import Timeouts
from tests.support.processes import (
    ServerError,
    ends_with_parent,
    family,
    free_port,
    kill,
    last_lines,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg import Connection

ADMIN = "admin"


class MissingError(RuntimeError):
    """There is no PostgreSQL on this machine; the message says how to get one."""


class PostgresServer:
    """
    One server of the tests' own; everybody on loopback is let in.

    :param settings: as in ``postgresql.conf`` (``{"max_connections": 5}``)
    :param standby_of: a running server; this one is its copy, kept up by streaming, read-only
    :param host_rules: lines of ``pg_hba.conf`` that come before the one that lets everybody in
    :param tls: files of the server's certificate and its key; given, it speaks TLS to who asks for it
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, object] | None = None,
        standby_of: PostgresServer | None = None,
        host_rules: str = "",
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        self.port = free_port()
        self._settings = dict(settings or {})
        self._primary = standby_of
        self._host_rules = host_rules
        self._tls = tls
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """The temporary folder that holds data, socket and log; made when first asked for."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="batchkit-postgres-"))
            _give_to(_unprivileged_user(), self._folder)
            self._make_data()
        return self._folder

    def start(self, *, seconds: float = 60) -> None:
        """Start the server and wait until it answers; its data is what an earlier start left."""
        given = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "autovacuum": "off",
            "max_wal_senders": 4,
            "ssl": "off" if self._tls is None else "on",
            **self._settings,
        }
        options = [f"-c{name}={value}" for name, value in given.items()]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*ends_with_parent("INT"), _program("postgres"), f"-D{self._data}", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **_as_user(),
            )
        try:
            wait_until(self._answers, seconds=seconds, what=f"PostgreSQL on port {self.port}", every=0.05)
        except ServerError as error:
            self.kill()
            raise ServerError(
                f"{error}; its log ends with:\n{last_lines(self.folder / 'server.log')}"
            ) from None

    def stop(self) -> None:
        """End the server and remove its folder; nothing happens where it does not run."""
        try:
            self.stop_in_order()
        except subprocess.TimeoutExpired:
            self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None

    def kill(self) -> None:
        """Kill the server with all its processes; :meth:`start` brings it back with its data."""
        if self._process is not None:
            kill(family(self._process.pid))
            self._process.wait(timeout=10)
            self._process = None

    def stop_in_order(self) -> None:
        """Shut the server down, cutting its sessions off; :meth:`start` brings it back with its data."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=20)
            self._process = None

    @property
    def starts(self) -> int:
        """How often it became ready, also by itself after one of its processes was killed."""
        return (self.folder / "server.log").read_text().count("is ready to accept connections")

    def backend(self, pid: int) -> psutil.Process:
        """Return the server's process for one session, for tests that signal it."""
        assert any(process.pid == pid for process in family(self._process.pid if self._process else 0))
        return psutil.Process(pid)

    def endpoint(self, database: str = "postgres", **changes: Any) -> PostgresEndpoint:
        """Return how the package reaches a database."""
        return PostgresEndpoint(
            **{"host": "127.0.0.1", "port": self.port, "database": database, "user": ADMIN, **changes}
        )

    def connect(self, database: str = "postgres") -> Connection[Any]:
        """Return a connection as the package makes it."""
        return connect(self.endpoint(database), Timeouts())

    def run(self, *statements: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run statements, each committed by itself, and return the rows of the last one."""
        with self.connect(database) as connection:
            for statement in statements:
                answer = connection.execute(statement.encode())
            return answer.fetchall() if answer.description else []

    def new_database(self, **options: str) -> str:
        """Make an empty database of its own for a test, and return its name.

        :param options: as ``CREATE DATABASE`` takes them (``encoding="SQL_ASCII"``)
        """
        name = f"test_{secrets.token_hex(4)}"
        settings = " ".join(f"{option} '{value}'" for option, value in options.items())
        self.run(f"CREATE DATABASE {name} TEMPLATE template0 {settings}")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever still reads it."""
        self.run(f"DROP DATABASE {name} WITH (FORCE)")

    @property
    def _data(self) -> Path:
        assert self._folder is not None
        return self._folder / "data"

    def _make_data(self) -> None:
        if self._primary is None:
            command = [_program("initdb"), f"-D{self._data}", f"-U{ADMIN}", "--auth=trust", "--no-sync"]
            command += ["--encoding=UTF8", "--locale=C.UTF-8"]
        else:
            command = [_program("pg_basebackup"), f"-D{self._data}", f"-U{ADMIN}", "-h127.0.0.1"]
            command += [f"-p{self._primary.port}", "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        done = subprocess.run(
            command,
            cwd=self._data.parent,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **_as_user(),
        )
        if done.returncode != 0:
            raise ServerError(f"{command[0]} failed: {done.stderr}")
        rules = self._data / "pg_hba.conf"
        rules.write_text(self._host_rules + rules.read_text())
        for name, file in zip(("server.crt", "server.key"), self._tls or (), strict=False):
            shutil.copy(file, self._data / name)
            (self._data / name).chmod(0o600)  # PostgreSQL refuses a key that others may read
            _give_to(_unprivileged_user(), self._data / name)

    def _answers(self) -> bool:
        from psycopg import OperationalError

        if self._process is None or self._process.poll() is not None:
            raise ServerError(f"PostgreSQL on port {self.port} ended by itself")
        try:
            self.run("SELECT 1")
        except OperationalError:
            return False
        return True


def _program(name: str) -> str:
    """Return the path of a program of the newest PostgreSQL on this machine."""
    installed = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"),
        key=lambda path: int(re.sub(r"\D", "", path.parts[4])),
    )
    found = str(installed[-1]) if installed else shutil.which(name)
    if found is None:
        raise MissingError(
            f"a real PostgreSQL is needed, and {name} is neither in /usr/lib/postgresql/*/bin nor on PATH "
            "(on Debian: apt-get install postgresql)"
        )
    return found


def installed() -> str:
    """Return the path of the server's program.

    :raises MissingError: there is none; the message says how to get one
    """
    return _program("postgres")


def _unprivileged_user() -> int | None:
    """Return whom to run as where we are root, as which PostgreSQL refuses to run; else nobody else."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _as_user() -> dict[str, Any]:
    user = _unprivileged_user()
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwuid(user).pw_gid, "extra_groups": []}


def _give_to(user: int | None, folder: Path) -> None:
    if user is not None:
        os.chown(folder, user, pwd.getpwuid(user).pw_gid)
