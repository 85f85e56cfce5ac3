"""A real Elasticsearch node for the tests: on loopback, on a free port, its data in a temporary folder."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from tests.support.elasticsearch_distribution import VERSION, elasticsearch_home, java_home
from tests.support.elasticsearch_folder import (
    CA,
    PASSWORD,
    fill,
    new_folder,
    readable_by,
    unprivileged_user,
    write_certificate,
)
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
    from pathlib import Path

    import psutil
    from elasticsearch import Elasticsearch

    from tests.support.certificates import ServerCertificate


ADMIN = "admin"


class ElasticsearchEndpoint:
    """
    An Elasticsearch that answers at a URL, whoever started it.

    :param secured: whether it asks who is there; then the tests are :data:`ADMIN` with :data:`PASSWORD`
    """

    def __init__(self, url: str, *, secured: bool = False) -> None:
        self.url = url
        self.secured = secured

    @property
    def ca_certs(self) -> Path | None:
        """The certificate to trust where it speaks https."""
        return None

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
        trusted = None if self.ca_certs is None else ssl.create_default_context(cafile=self.ca_certs)
        with urllib.request.urlopen(request, timeout=timeout, context=trusted) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text else None

    def client(self) -> Elasticsearch:
        """Return a new official client; close it when done."""
        from elasticsearch import Elasticsearch

        login = (ADMIN, PASSWORD) if self.secured else None
        trusted: dict[str, Any] = {} if self.ca_certs is None else {"ca_certs": str(self.ca_certs)}
        return Elasticsearch(self.url, request_timeout=30, basic_auth=login, **trusted)


class ElasticsearchServer(ElasticsearchEndpoint):
    """
    One node of the tests' own.

    :param version: one that Maven has
    :param settings: merged into ``elasticsearch.yml`` (``{"thread_pool.write.queue_size": 1}``); None takes
        away what the tests set
    :param users: name → names of its roles; given, security is on and each user's password is
        :data:`PASSWORD`, the superuser :data:`ADMIN` besides
    :param roles: name → definition of a role, as ``roles.yml`` takes it
    :param certificate: given, the node speaks https with the first of its names
    :param heap: size of the Java heap, as in ``-Xmx``
    """

    def __init__(
        self,
        *,
        version: str = VERSION,
        settings: Mapping[str, object] | None = None,
        users: Mapping[str, Sequence[str]] | None = None,
        roles: Mapping[str, object] | None = None,
        certificate: ServerCertificate | None = None,
        heap: str = "512m",
    ) -> None:
        self.port = free_port()
        self.transport_port = free_port()
        where = "http://127.0.0.1" if certificate is None else f"https://{certificate.names[0]}"
        super().__init__(f"{where}:{self.port}", secured=users is not None)
        self._version = version
        self._settings = dict(settings or {})
        self._users = {**(users or {}), ADMIN: ["superuser"]}
        self._roles = dict(roles or {})
        self._certificate = certificate
        self._heap = heap
        self._folder: Path | None = None
        self._launcher: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """The temporary folder that holds the node's config, data and log; made when first asked for."""
        if self._folder is None:
            self._folder = self._new_folder()
        return self._folder

    @property
    @override
    def ca_certs(self) -> Path | None:
        return None if self._certificate is None else self.folder / "config" / CA

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the certificate that it shows, where it speaks https."""
        return None if self._certificate is None else self._certificate.fingerprint

    def start(self, *, seconds: float = 120) -> None:
        """Start the node and wait until it answers; its data is what an earlier start left."""
        self.launch()
        self.wait_until_ready(seconds=seconds)

    def launch(self) -> None:
        """Start the node and do not wait."""
        user = unprivileged_user()
        home = readable_by(user, elasticsearch_home(self._version), self.folder)
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

    def wait_until_ready(self, *, seconds: float = 120) -> None:
        """Wait until the node answers; kill it when it does not."""
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
        folder = new_folder()
        tls = {} if self._certificate is None else write_certificate(folder, self._certificate)
        settings = {
            "cluster.name": folder.name,
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": self.port,
            "transport.port": self.transport_port,
            "path.data": str(folder / "data"),
            "path.logs": str(folder / "logs"),
            "xpack.security.enabled": self.secured,
            "cluster.routing.allocation.disk.threshold_enabled": False,
            **tls,
            **self._settings,
        }
        distribution = elasticsearch_home(self._version)
        fill(folder, distribution, settings=settings, users=self._users, roles=self._roles)
        return folder
