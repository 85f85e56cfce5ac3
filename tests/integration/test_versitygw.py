"""What a second S3 server shows: it enforces policies by itself, and writes conditionally in one step."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import IO, TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.object_storage import S3Settings
from airflow_batchkit.connectors.object_storage.s3_settings import MIN_PART_BYTES
from airflow_batchkit.engine.exceptions import UsageError
from tests.support.object_storage import Place, S3Connections, make_place
from tests.support.s3_exports import ALL_ACTIONS, BASIC_ACTIONS, Exports, policy_of, published
from tests.support.s3_policy import without
from tests.support.versitygw import WORKER, WORKER_SECRET, BucketPolicy, program

if TYPE_CHECKING:
    from tests.support.s3 import S3Server

# Not even CI has it: building it takes minutes and a Go compiler, for what the judge and files show as well.
with_versitygw = pytest.mark.skipif(
    program() is None, reason="optional: set BATCHKIT_TEST_VERSITYGW, see tests/support/versitygw.py"
)
STARTERS = 8
ROUNDS = 10


@pytest.mark.s3
@with_versitygw
def test_each_action_is_missed_on_a_server_with_policies(s3_server: S3Server, bucket: str) -> None:
    """The documented policy is enough where the server enforces it, and not without each of its actions."""
    connections = S3Connections(
        endpoint_url=s3_server.endpoint_url, access_key=WORKER, secret_key=WORKER_SECRET
    )
    # It knows no KMS, and ACLs only where they are switched on.
    asked = [action for action in ALL_ACTIONS if not action.startswith("kms:") and "Acl" not in action]
    for action in asked:
        plain = action in BASIC_ACTIONS
        settings = None if plain else S3Settings(tags={"team": "search"}, multipart_bytes=MIN_PART_BYTES)
        whole = policy_of(bucket, everything=not plain)
        policy = BucketPolicy(s3_server, bucket, whole)
        exports = Exports(connections, bucket, settings)
        exports.run_in_two_legs("run-1")
        policy.policy = without(whole, action)
        with pytest.raises(UsageError, match=action):
            exports.leg("run-2")
        assert published(s3_server, bucket) == {"run-1"}
        policy.policy = whole
        exports.run_in_two_legs("run-3")
        assert published(s3_server, bucket) == {"run-3"}


@pytest.mark.parametrize("kind", ["file", pytest.param("s3", marks=[pytest.mark.s3, with_versitygw])])
def test_of_simultaneous_starters_one_wins(kind: str, request: pytest.FixtureRequest) -> None:
    """Of eight processes that start a run on one prefix at the same instant, exactly one gets it."""
    place = make_place(kind, request)
    starters = [Starter(place, number) for number in range(STARTERS)]
    try:
        assert [starter.hear() for starter in starters] == ["ready"] * STARTERS
        for _ in range(ROUNDS):
            for starter in starters:
                starter.go()
            said = sorted(starter.hear() for starter in starters)
            assert said == ["TargetHeldError"] * (STARTERS - 1) + ["won"]
    finally:
        for starter in starters:
            starter.end()


class Starter:
    """A process that tries to own another prefix whenever it is told to.

    :param place: the prefixes lie below.
    :param number: names its run.
    """

    def __init__(self, place: Place, number: int) -> None:
        settings = {"url": place.url, "connections": asdict(place.connections), "number": number}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.starter", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def go(self) -> None:
        """Let it try."""
        self._pipe(self._process.stdin).write("go\n")
        self._pipe(self._process.stdin).flush()

    def hear(self) -> str:
        """Wait for its next line."""
        return self._pipe(self._process.stdout).readline().strip()

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate(timeout=20)

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe
