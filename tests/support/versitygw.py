"""A second S3 API for the tests, made by others than moto: versitygw, where somebody has installed it.

``go install github.com/versity/versitygw/cmd/versitygw@latest`` takes some minutes and a Go compiler, so no
test run needs it. With ``BATCHKIT_TEST_VERSITYGW=<path of the program>`` all tests of S3 talk to it instead
of moto. It checks signatures, writes conditionally in one step, and enforces bucket policies.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.processes import (
    ServerError,
    end,
    ends_with_parent,
    family,
    free_port,
    last_lines,
    wait_until,
)
from tests.support.s3 import S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.s3_policy import Policy

WORKER = "worker"
WORKER_SECRET = "worker-secret-key"


class BucketPolicy:
    """Lets the worker do in a bucket what an identity-based policy would let it.

    :param server: a versitygw.
    :param bucket: name of the bucket, which is the only one of the policy.
    :param policy: what is allowed.
    """

    def __init__(self, server: S3Server, bucket: str, policy: Policy) -> None:
        self._server = server
        self._bucket = bucket
        self.policy = policy

    @property
    def policy(self) -> Policy:
        """What is allowed now."""
        return self._policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self._policy = policy
        statements = [
            {**one, "Principal": {"AWS": [WORKER]}}
            for one in policy["Statement"]
            if one["Action"] and one["Resource"][0].startswith("arn:aws:s3:")
        ]
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        with self._server.client() as client:
            client.put_bucket_policy(Bucket=self._bucket, Policy=document)


def program() -> str | None:
    """Return where versitygw is, None where no test asks for it."""
    return os.environ.get("BATCHKIT_TEST_VERSITYGW")


@contextmanager
def versitygw_server(program: str, folder: Path) -> Iterator[S3Server]:
    """Run it for the time of a ``with`` block, with an account besides the owner's that policies are for."""
    server = S3Server(endpoint_url=f"http://127.0.0.1:{free_port()}")
    log = folder / "versitygw.log"
    for name in ("objects", "accounts"):
        (folder / name).mkdir()
    options = ["--access", server.access_key, "--secret", server.secret_key, "--region", server.region]
    address = server.endpoint_url.removeprefix("http://")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *ends_with_parent("TERM"),
                program,
                *options,
                *("--port", address, "--iam-dir", str(folder / "accounts"), "--quiet"),
                *("posix", str(folder / "objects")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: _has_worker(program, server, process), seconds=30, what=f"versitygw at {address}")
        yield server
    except ServerError as error:
        raise ServerError(f"{error}; its log ends with:\n{last_lines(log)}") from None
    finally:
        end(family(process.pid), grace=5)
        process.wait(timeout=10)


def _has_worker(program: str, server: S3Server, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise ServerError(f"versitygw ended by itself with exit code {process.returncode}")
    made = subprocess.run(
        [
            *(program, "admin", "--access", server.access_key, "--secret", server.secret_key),
            *("--endpoint-url", server.endpoint_url, "create-user"),
            *("--access", WORKER, "--secret", WORKER_SECRET, "--role", "user"),
        ],
        capture_output=True,
        timeout=10,
        check=False,
    )
    return made.returncode == 0
