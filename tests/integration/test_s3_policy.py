"""Least privilege on S3: the documented policies are enough; each action of them is missed in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.object_storage import S3Settings
from airflow_batchkit.connectors.object_storage.s3_settings import MIN_PART_BYTES
from airflow_batchkit.engine.exceptions import BatchkitError, UsageError
from tests.support.object_storage import S3Connections
from tests.support.s3_exports import ALL_ACTIONS, BASIC_ACTIONS, KMS_KEY, Exports, policy_of, published
from tests.support.s3_policy import PolicyJudge, without
from tests.support.s3_proxy import s3_proxy

if TYPE_CHECKING:
    from tests.support.s3 import S3Server

pytestmark = pytest.mark.s3

EVERYTHING = S3Settings(
    server_side_encryption="aws:kms",
    sse_kms_key_id=KMS_KEY,
    acl="bucket-owner-full-control",
    tags={"team": "search"},
    multipart_bytes=MIN_PART_BYTES,
)


@contextmanager
def behind(
    server: S3Server, judge: PolicyJudge, bucket: str, settings: S3Settings | None
) -> Iterator[Exports]:
    """Put a judge in front of a server."""
    with s3_proxy(server.endpoint_url, judge=judge) as url:
        connections = S3Connections(
            endpoint_url=url, access_key=server.access_key, secret_key=server.secret_key
        )
        yield Exports(connections, bucket, settings)


def failure_of(work: Callable[[], None]) -> BatchkitError | None:
    """Return what it raises, None where it does not need what was taken away any more."""
    try:
        work()
    except BatchkitError as error:
        return error
    return None


@pytest.mark.parametrize("settings", [None, EVERYTHING], ids=["plain", "everything"])
def test_the_documented_policy_is_enough(
    s3_server: S3Server, bucket: str, settings: S3Settings | None
) -> None:
    """Export, resume, publication over an older generation and dead letters work with exactly that policy."""
    judge = PolicyJudge(policy_of(bucket, everything=settings is not None), kms_key=KMS_KEY)
    with behind(s3_server, judge, bucket, settings) as exports:
        exports.run_in_two_legs("run-1")
        exports.run_in_two_legs("run-2")
    assert published(s3_server, bucket) == {"run-2"}
    assert judge.denied == []


@pytest.mark.parametrize("says_why", [True, False], ids=["named by the store", "plain denial"])
@pytest.mark.parametrize("action", ALL_ACTIONS)
def test_each_action_is_missed_before_any_work(
    s3_server: S3Server, bucket: str, action: str, says_why: bool
) -> None:
    """Without one action a try is refused before it writes a batch, naming it; what was published stays."""
    settings = None if action in BASIC_ACTIONS else EVERYTHING
    whole = policy_of(bucket, everything=settings is not None)
    # What KMS denies is told by S3 in KMS's words.
    judge = PolicyJudge(whole, kms_key=KMS_KEY, says_why=says_why or action.startswith("kms:"))
    effects: list[str] = []
    with behind(s3_server, judge, bucket, settings) as exports:
        exports.leg("run-1")
        judge.policy = without(whole, action)
        with pytest.raises(UsageError, match=action) as refused:
            exports.leg("run-2", probe=lambda name, _: effects.append(name))
        assert bucket in str(refused.value) or KMS_KEY in str(refused.value)
        assert "\n" not in str(refused.value)
        assert "sink.put" not in effects
        assert published(s3_server, bucket) == {"run-1"}
        judge.policy = whole
        exports.leg("run-3")
    assert published(s3_server, bucket) == {"run-3"}


@pytest.mark.parametrize(
    "moment", ["dead_letters.copy", "sink.confirm", "sink.copy", "sink.success", "sink.delete"]
)
@pytest.mark.parametrize("action", BASIC_ACTIONS)
def test_an_action_taken_away_while_publishing_loses_nothing(
    s3_server: S3Server, bucket: str, action: str, moment: str
) -> None:
    """The run fails with the action's name; one whole output is readable, and the next try publishes."""
    whole = policy_of(bucket, everything=False)
    judge = PolicyJudge(whole, says_why=False)

    def take_away(name: str, when: str) -> None:
        if (name, when) == (moment, "before"):
            judge.policy = without(whole, action)

    with behind(s3_server, judge, bucket, None) as exports:
        exports.leg("run-1")
        failure = failure_of(lambda: exports.leg("run-2", probe=take_away))
        assert failure is None or (isinstance(failure, UsageError) and action in str(failure))
        assert published(s3_server, bucket) <= {"run-1", "run-2"}
        judge.policy = whole
        exports.leg("run-2")
    assert published(s3_server, bucket) == {"run-2"}


def test_verify_only_reads_and_lists(s3_server: S3Server, bucket: str) -> None:
    """An output is verified with the two rights that docs/verify.md names, and not with one."""
    judge = PolicyJudge(whole := policy_of(bucket, everything=False))
    reading = without(without(whole, "s3:PutObject"), "s3:DeleteObject")
    with behind(s3_server, judge, bucket, None) as exports:
        exports.leg("run-1")
        judge.policy = reading
        assert exports.verify().whole
        assert judge.denied == []
        for action in ("s3:GetObject", "s3:ListBucket"):
            judge.policy = without(reading, action)
            with pytest.raises(UsageError, match=action):
                exports.verify()


def test_a_missing_object_that_is_answered_with_403(s3_server: S3Server, bucket: str) -> None:
    """Stores that deny what does not exist, though listing is allowed below the prefix, are seen through."""
    whole = policy_of(bucket, everything=False)
    judge = PolicyJudge(whole, says_why=False, hides_missing=True)
    with behind(s3_server, judge, bucket, None) as exports:
        exports.run_in_two_legs("run-1")
    assert "s3:ListBucket" in judge.denied
    assert published(s3_server, bucket) == {"run-1"}
