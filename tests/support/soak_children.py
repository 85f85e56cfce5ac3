"""The processes of a soak: its legs, and who changes documents meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.support.copying import COMMAND
from tests.support.forking import fork
from tests.support.soak_jobs import SoakJob
from tests.support.soak_legs import LONGEST_LEG, Ended, SoakError, Trouble, run_leg
from tests.support.soak_servers import Servers


class Child:
    """A leg at work."""

    def __init__(self, work: Callable[[], dict[str, str]], *, what: str) -> None:
        self.what = what
        self.pid, self._pipe = fork(work)
        self._over = False  # its number may be another process's then

    def signal(self, sent: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if not self._over:
            os.kill(self.pid, sent)

    def wait(self, seconds: float) -> Ended | None:
        """Wait until it ends or freezes; None when it did not in time."""
        deadline = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if pid:
                return self._ended(status)
            if time.monotonic() > deadline:
                return None
            time.sleep(0.004)

    def wait_to_end(self) -> Ended:
        """Wait until it ends or freezes.

        :raises SoakError: it hangs, or failed in a way that no trouble explains.
        """
        ended = self.wait(LONGEST_LEG)
        if ended is None:
            self.signal(signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._over = True
            raise SoakError(f"{self.what} hangs")
        if ended.how == "broken":
            raise SoakError(f"{self.what} failed:\n{ended.why}")
        return ended

    def _ended(self, status: int) -> Ended:
        if os.WIFSTOPPED(status):
            return Ended("frozen")
        self._over = True
        with self._pipe as pipe:
            text = pipe.read()
        if os.WIFSIGNALED(status):
            return Ended("killed")
        if os.WEXITSTATUS(status) or not text:
            return Ended("broken", f"exit code {os.WEXITSTATUS(status)}; its log may say more")
        return Ended(**json.loads(text))


@dataclass
class Command:
    """``batchkit copy`` at work, in the place of a forked leg."""

    process: subprocess.Popen[bytes]
    what: str
    output: Path
    pid: int = field(init=False)

    def __post_init__(self) -> None:
        self.pid = self.process.pid

    def signal(self, sent: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        self.process.send_signal(sent)

    def wait(self, seconds: float) -> Ended | None:
        """Wait until it ends; None when it did not in time."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        if code == -signal.SIGTERM:
            return Ended("killed")  # before it had installed its handler
        return Ended({0: "completed", 4: "stopped", -signal.SIGKILL: "killed"}.get(code, "broken"))

    def wait_to_end(self) -> Ended:
        """Wait until it ends.

        :raises SoakError: it hangs or failed.
        """
        ended = self.wait(LONGEST_LEG)
        if ended is None or ended.how == "broken":
            self.process.kill()
            self.process.wait()
            said = self.output.read_text()[-2000:]
            raise SoakError(f"{self.what} {'hangs' if ended is None else 'failed'}:\n{said}")
        return ended


def start(job: SoakJob, run: int, servers: Servers, trouble: Trouble) -> Child | Command:
    """Start one leg of a run."""
    what = f"a leg of {job.name}, run {run}, with {trouble}"
    if not job.by_command:
        return Child(partial(run_leg, job, run, servers, trouble.probe(job)), what=what)
    output = servers.job_folder(job) / "output"
    with output.open("ab") as file:
        process = subprocess.Popen(
            [COMMAND, "copy", *_arguments(job, servers)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **_variables(servers)},
        )
    return Command(process, what, output)


def _arguments(job: SoakJob, servers: Servers) -> Iterator[str]:
    if job.source == "elasticsearch":
        yield f"elasticsearch+{servers.elasticsearch_url}/{job.name}"
    elif job.source == "postgres":
        where = servers.postgres
        yield f"postgresql://{where['host']}:{where['port']}/{where['database']}?table={job.name}"
    else:
        yield f"sqlite://{servers.sqlite_path(job)}?table={job.name}"
    yield f"{servers.url(job)}/data"
    yield from ("--checkpoint", str(servers.job_folder(job) / "checkpoint"), "--no-progress")
    yield from ("--compression", job.compression or "none", "--max-bytes-per-batch", f"{job.max_bytes}B")
    if job.max_records is not None:
        yield from ("--max-records-per-batch", str(job.max_records))
    if job.rate is not None:
        yield from ("--rate", f"{job.rate:.0f}")


def _variables(servers: Servers) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_S3": servers.s3["endpoint_url"],
        "AWS_ACCESS_KEY_ID": servers.s3["access_key"],
        "AWS_SECRET_ACCESS_KEY": servers.s3["secret_key"],
        "AWS_DEFAULT_REGION": servers.s3["region"],
        "AWS_EC2_METADATA_DISABLED": "true",
        "PGUSER": str(servers.postgres.get("user", "")),
        "XDG_STATE_HOME": servers.folder,
    }


@contextmanager
def changed_meanwhile(job: SoakJob, servers: Servers, run: int) -> Iterator[None]:
    """Change every fifth document of a changing index again and again, for a ``with`` block."""
    if not job.changing:
        yield
        return
    child, pipe = fork(partial(_change, job, servers, run))
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        pipe.close()
        os.waitpid(child, 0)


def _change(job: SoakJob, servers: Servers, run: int) -> None:
    state = 0
    while True:
        state += 1
        for number in range(job.runs[run]):
            if job.changes(number):
                with contextlib.suppress(OSError):  # the server may be killed by the soak
                    servers.elasticsearch.request(
                        "PUT", f"/{job.name}/_doc/{number}", json.loads(job.body(run, number, state))
                    )
        time.sleep(0.01)
