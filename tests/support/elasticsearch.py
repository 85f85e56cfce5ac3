"""A real Elasticsearch node for the tests: on loopback, on a free port, its data in a temporary folder."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.elasticsearch_distribution import elasticsearch_home, java_home
from tests.support.processes import (
    ServerError,
    end,
    ends_with_parent,
    family,
    free_port,
    kill,
    last_lines,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psutil
    from elasticsearch import Elasticsearch


ADMIN = "admin"
PASSWORD = "password-of-the-tests"


class ElasticsearchEndpoint:
    """
    An Elasticsearch that answers at a URL, whoever started it.

    :param secured: whether it asks who is there; then the tests are :data:`ADMIN` with :data:`PASSWORD`
    """

    def __init__(self, url: str, *, secured: bool = False) -> None:
        self.url = url
        self.secured = secured

    def request(self, method: str, path: str, body: object = None, *, timeout: float = 30) -> Any:
        """
        Send one request past every client library and return the decoded answer.

        :param path: path and query, with its leading slash
        :param body: bytes are sent as they are (NDJSON for ``_bulk``), anything else as JSON
        :param timeout: seconds until a connection or read counts as failed
        :raises urllib.error.HTTPError: the answer's status is 400 or more
        """
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = "application/x-ndjson" if isinstance(body, bytes) else "application/json"
        headers = {"Content-Type": kind}
        if self.secured:
            headers["Authorization"] = f"Basic {b64encode(f'{ADMIN}:{PASSWORD}'.encode()).decode()}"
        request = urllib.request.Request(  # noqa: S310 - the URL is the test server's own
            f"{self.url}{path}", data=data, method=method, headers=headers
        )
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text else None

    def client(self) -> Elasticsearch:
        """Return a new official client; close it when done."""
        from elasticsearch import Elasticsearch

        login = (ADMIN, PASSWORD) if self.secured else None
        return Elasticsearch(self.url, request_timeout=30, basic_auth=login)


class ElasticsearchServer(ElasticsearchEndpoint):
    """
    One node of the tests' own.

    :param settings: merged into ``elasticsearch.yml`` (``{"thread_pool.write.queue_size": 1}``)
    :param users: name → names of its roles; given, security is on and each user's password is
        :data:`PASSWORD`, the superuser :data:`ADMIN` besides
    :param roles: name → definition of a role, as ``roles.yml`` takes it
    :param heap: size of the Java heap, as in ``-Xmx``
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, object] | None = None,
        users: Mapping[str, Sequence[str]] | None = None,
        roles: Mapping[str, object] | None = None,
        heap: str = "512m",
    ) -> None:
        self.port = free_port()
        super().__init__(f"http://127.0.0.1:{self.port}", secured=users is not None)
        self._settings = dict(settings or {})
        self._users = {**(users or {}), ADMIN: ["superuser"]}
        self._roles = dict(roles or {})
        self._heap = heap
        self._folder: Path | None = None
        self._launcher: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """The temporary folder that holds the node's config, data and log; made when first asked for."""
        if self._folder is None:
            self._folder = self._new_folder()
        return self._folder

    def start(self, *, seconds: float = 120) -> None:
        """Start the node and wait until it answers; its data is what an earlier start left."""
        user = _unprivileged_user()
        home = _readable_by(user, elasticsearch_home(), self.folder)
        environment = {
            "ES_JAVA_HOME": str(java_home()),
            "ES_JAVA_OPTS": f"-Xms{self._heap} -Xmx{self._heap}",
            "ES_PATH_CONF": str(self.folder / "config"),
            "ES_TMPDIR": str(self.folder / "tmp"),
            "PATH": os.environ["PATH"],
        }
        with (self.folder / "node.log").open("ab") as log:
            self._launcher = subprocess.Popen(
                [*ends_with_parent("TERM"), str(home / "bin" / "elasticsearch")],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=user,
                group=user and pwd.getpwuid(user).pw_gid,
                extra_groups=[] if user else None,
                start_new_session=True,
            )
        try:
            wait_until(self._answers, seconds=seconds, what=f"Elasticsearch at {self.url}", every=0.25)
        except ServerError as error:
            self.kill()
            raise ServerError(
                f"{error}; its log ends with:\n{last_lines(self.folder / 'node.log')}"
            ) from None

    def stop(self) -> None:
        """End the node in order and remove its folder; nothing happens where it does not run."""
        self._end_processes(in_order=True)
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None

    def kill(self) -> None:
        """Kill the node as a power cut would (SIGKILL); :meth:`start` brings it back with its data."""
        self._end_processes(in_order=False)

    def restart(self, *, in_order: bool = True) -> None:
        """Stop or kill the node and start it again, on the same port and data."""
        self._end_processes(in_order=in_order)
        self.start()

    def processes(self) -> list[psutil.Process]:
        """Return the launcher and the Java process of the node, for tests that signal them."""
        return family(self._launcher.pid) if self._launcher else []

    def _end_processes(self, *, in_order: bool) -> None:
        if self._launcher is None:
            return
        if in_order:
            end(self.processes(), grace=20)
        else:
            kill(self.processes())
        self._launcher.wait(timeout=10)
        self._launcher = None

    def _answers(self) -> bool:
        if self._launcher is None or self._launcher.poll() is not None:
            raise ServerError(f"Elasticsearch at {self.url} ended by itself")
        try:
            health = self.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s", timeout=5)
        except (urllib.error.URLError, OSError):
            return False
        return health["status"] in {"yellow", "green"}

    def _new_folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="batchkit-elasticsearch-"))
        config = folder / "config"
        shutil.copytree(elasticsearch_home() / "config", config)
        settings = {
            "cluster.name": folder.name,
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": self.port,
            "transport.port": free_port(),
            "path.data": str(folder / "data"),
            "path.logs": str(folder / "logs"),
            "xpack.security.enabled": self.secured,
            "cluster.routing.allocation.disk.threshold_enabled": False,
            **self._settings,
        }
        _write_yaml(config / "elasticsearch.yml", settings)
        _write_yaml(config / "roles.yml", self._roles)
        _write_users(config, self._users)
        for name in ("data", "logs", "tmp"):
            (folder / name).mkdir()
        _give_to(_unprivileged_user(), folder)
        return folder


def _write_yaml(path: Path, values: Mapping[str, object]) -> None:
    path.write_text("".join(f"{json.dumps(name)}: {json.dumps(value)}\n" for name, value in values.items()))


def _write_users(config: Path, users: Mapping[str, Sequence[str]]) -> None:
    """Write the two files of Elasticsearch's file realm: who there is, and who has which role."""
    rounds, salt = 1000, b"the salt of the tests, 32 bytes."
    digest = hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), salt, rounds, dklen=32)
    hashed = f"{{PBKDF2}}{rounds}${b64encode(salt).decode()}${b64encode(digest).decode()}"
    (config / "users").write_text("".join(f"{name}:{hashed}\n" for name in users))
    roles = sorted({role for has in users.values() for role in has})
    lines = [f"{role}:{','.join(name for name in users if role in users[name])}\n" for role in roles]
    (config / "users_roles").write_text("".join(lines))


def _unprivileged_user() -> int | None:
    """Return whom to run as where we are root, as which Elasticsearch refuses to run; else nobody else."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _give_to(user: int | None, folder: Path) -> None:
    if user is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user, pwd.getpwuid(user).pw_gid)


def _readable_by(user: int | None, home: Path, folder: Path) -> Path:
    """Return the distribution, copied into the node's folder where its own lies under a closed folder."""
    if user is None or all(parent.stat().st_mode & 0o001 for parent in home.parents):
        return home
    copy = folder / home.name
    if not copy.exists():
        shutil.copytree(home, copy)
        _give_to(user, copy)
    return copy
