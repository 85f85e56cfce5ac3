"""Exports into a bucket with only the rights that ``docs/s3.md`` says they take."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink, S3Settings
from airflow_batchkit.connectors.object_storage.verify.output import OutputVerifier
from airflow_batchkit.engine.exceptions import RecordError, StoppedError
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.testing.doubles import MemoryStore
from tests.support.object_storage import Place, S3Connections
from tests.support.s3_policy import Policy, actions_of

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.verify.verification import Verification
    from tests.support.s3 import S3Server

PAGE = Path(__file__).parents[2] / "docs" / "s3.md"
KMS_KEY = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
BASIC, EXTRA = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL))
BASIC_ACTIONS, ALL_ACTIONS = actions_of(BASIC), [*actions_of(BASIC), *actions_of(EXTRA)]
RECORDS = 40
BAD = 7

Probe = Callable[[str, Literal["before", "after"]], None]


def policy_of(bucket: str, *, everything: bool) -> Policy:
    """Return what the page says, for this bucket."""
    statements = [*BASIC["Statement"], *(EXTRA["Statement"] if everything else ())]
    text = json.dumps({"Version": "2012-10-17", "Statement": statements})
    policy: Policy = json.loads(text.replace("s3:::lake", f"s3:::{bucket}"))
    return policy


def refuse_one(record: dict[str, Any]) -> dict[str, Any]:
    """Give one record up."""
    if record["id"] == BAD:
        raise RecordError("bad")
    return record


class Exports:
    """Runs of one job into a bucket behind a judge.

    :param connections: lead to the bucket, with the rights of the policy.
    :param bucket: where to.
    :param settings: of the sink and of the dead letters.
    """

    def __init__(self, connections: S3Connections, bucket: str, settings: S3Settings | None) -> None:
        self._connections = connections
        self._bucket = bucket
        self._store = MemoryStore()
        self._run = "run-1"
        self._job = Job(
            name="export",
            source=IterableSource(records=self._records, key="id"),
            sink=ObjectStorageSink(url=f"s3://{bucket}/orders", s3_settings=settings),
            transform=refuse_one,
            batch=BatchPolicy(max_records=10),
            error_budget=ErrorBudget(max_dead_letters=1),
            dead_letters=DeadLetters(f"s3://{bucket}/dead-letters", s3_settings=settings),
        )

    def leg(self, run: str, *, stopped: bool = False, probe: Probe = lambda *_: None) -> None:
        """Run one leg to its end.

        :param stopped: it is stopped after its first batch.
        :param probe: told of every side effect.
        """
        self._run = run
        stop = Stop()

        def stopping(name: str, when: Literal["before", "after"]) -> None:
            probe(name, when)
            if stopped and (name, when) == ("checkpoint.save", "after"):
                stop.ask("by the test")

        pipeline = Pipeline(
            self._job,
            identity=RunIdentity(run=run),
            store=self._store,
            key="export",
            connections=self._connections,
            stop=stop,
        )
        with probing(stopping):
            pipeline.run()

    def run_in_two_legs(self, run: str) -> None:
        """Run one leg that is stopped, and one that goes on to the end."""
        with pytest.raises(StoppedError):
            self.leg(run, stopped=True)
        self.leg(run)

    def verify(self) -> Verification:
        """Verify what is published, with the same rights."""
        store = Place(url=f"s3://{self._bucket}/orders", connections=self._connections).store()
        return OutputVerifier(store, seconds=60, log=logging.getLogger("verify")).run()

    def _records(self) -> Iterator[dict[str, Any]]:
        return ({"id": number, "run": self._run} for number in range(RECORDS))


def published(server: S3Server, bucket: str) -> set[str]:
    """Insist that one whole output is readable, and return which run's it is."""
    connections = S3Connections(endpoint_url=server.endpoint_url)
    lines = [json.loads(line) for line in Place(url=f"s3://{bucket}/orders", connections=connections).lines()]
    assert [line["id"] for line in lines] == [number for number in range(RECORDS) if number != BAD]
    return {line["run"] for line in lines}
