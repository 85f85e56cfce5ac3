"""What happens to a real S3 API, or to a bucket in it, while an index is exported into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors import patience
from airflow_batchkit.connectors.object_storage.store import MissingObjectError
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    CannotResumeError,
    PermanentError,
    SupersededError,
    UsageError,
)
from airflow_batchkit.engine.policies import BatchPolicy
from tests.support.fault_table import FULL
from tests.support.faulty_export import Export, Struck, documents, meanwhile, prepare_index
from tests.support.http_faults import Asked, Fault, Status

if TYPE_CHECKING:
    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.s3 import S3Server

pytestmark = [pytest.mark.elasticsearch, pytest.mark.s3]

DOCUMENTS = documents(60)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the sink's own pauses short: how long they are is tested where they are made."""
    monkeypatch.setattr(patience, "_FIRST_WAIT", 0.02)


@pytest.fixture(scope="module")
def index(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give an index of 60 documents in two shards."""
    name = prepare_index(elasticsearch_server, DOCUMENTS)
    yield name
    elasticsearch_server.request("DELETE", f"/{name}")


@pytest.fixture
def export(
    elasticsearch_server: ElasticsearchEndpoint, index: str, s3_server: S3Server, bucket: str
) -> Export:
    """Give an export of the index."""
    return Export(elasticsearch_server, index, DOCUMENTS, s3_server, bucket)


def refusal(status: int, code: str) -> Status:
    """Return an error as S3 writes it."""
    body = f"<Error><Code>{code}</Code><Message>made up by a test</Message></Error>".encode()
    return Status(status, body, (("Content-Type", "application/xml"),))


def refuse(answer: Status, *, method: str, numbers: range) -> Callable[[Asked], Fault]:
    """Answer some of the requests of a method for parts with an error."""
    seen = iter(range(1, 1_000_000))
    return lambda asked: (
        answer if asked.method == method and "/part-" in asked.resource and next(seen) in numbers else None
    )


def insist_nothing_published(export: Export) -> None:
    """Insist that a reader by the manifest sees no output."""
    with pytest.raises(MissingObjectError):
        export.place.manifest()


@pytest.mark.fault("disk-full", at="s3")
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (507, "InsufficientStorage"),
        (507, "XMinioStorageFull"),
        (403, "QuotaExceeded"),
        (400, "QuotaExceeded"),
    ],
)
@pytest.mark.parametrize("number", [2, 8] if FULL else [4])
def test_a_full_store_ends_the_run_and_room_lets_it_go_on(
    export: Export, status: int, code: str, number: int
) -> None:
    """The run fails, says that the store is full, and goes on from there once there is room."""
    full = refuse(refusal(status, code), method="PUT", numbers=range(number, 1_000))
    struck = export.run_struck(s3=full)

    assert isinstance(struck.error, PermanentError), struck.error
    struck.insist_readable(export.bucket, code, "make room")
    insist_nothing_published(export)
    export.finish()


@pytest.mark.fault("too-large", at="s3")
def test_an_object_that_the_store_finds_too_large_says_what_to_lower(export: Export) -> None:
    """The run fails by the object's name and says which setting to lower; with that done it goes on."""
    too_large = refusal(400, "EntityTooLarge")
    limited = replace(export, sink_settings={"compression": None})
    struck = limited.run_struck(
        s3=lambda asked: too_large if "/part-" in asked.resource and len(asked.body) > 600 else None
    )

    assert isinstance(struck.error, PermanentError), struck.error
    struck.insist_readable("part-", "lower BatchPolicy.max_bytes")
    insist_nothing_published(limited)
    limited.settings = {"batch": BatchPolicy(max_bytes=500)}
    limited.finish()


@pytest.mark.fault("credentials", at="s3")
@pytest.mark.parametrize("number", [1, 3, 7] if FULL else [3])
def test_credentials_that_expire_are_fetched_anew(export: Export, number: int) -> None:
    """A token that has expired costs a new client, and nothing else."""
    expired = refuse(refusal(400, "ExpiredToken"), method="PUT", numbers=range(number, number + 1))
    struck = export.run_struck(s3=expired)

    assert struck.error is None, struck.error
    assert len(struck.struck) == 1
    assert export.legs == 1
    export.insist_exact()


@pytest.mark.fault("credentials", at="s3")
@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"])
def test_credentials_that_are_taken_back_end_the_run(export: Export, code: str) -> None:
    """The run fails at once, without a secret in its message, and goes on once the connection is mended."""
    taken = refuse(refusal(403, code), method="PUT", numbers=range(3, 1_000))
    struck = export.run_struck(s3=taken)

    assert isinstance(struck.error, UsageError), struck.error
    struck.insist_readable(export.bucket, code)
    export.finish()


def remove_bucket(export: Export) -> None:
    """Delete the bucket with all that is in it."""
    export.s3.empty(export.bucket)


def remove_a_part(export: Export) -> None:
    """Delete one staged object."""
    with export.s3.client() as client:
        client.delete_object(Bucket=export.bucket, Key=staged(export))


def cut_a_part(export: Export) -> None:
    """Put another content in the place of a staged object."""
    with export.s3.client() as client:
        client.put_object(Bucket=export.bucket, Key=staged(export), Body=b"something else")


def cut_a_part_and_keep_its_metadata(export: Export) -> None:
    """Put half of its content in the place of a staged object, with the same metadata."""
    with export.s3.client() as client:
        whole = client.get_object(Bucket=export.bucket, Key=staged(export))
        body = whole["Body"].read()
        client.put_object(
            Bucket=export.bucket,
            Key=staged(export),
            Body=body[: len(body) // 2],
            Metadata=whole["Metadata"],
        )


def staged(export: Export) -> str:
    """Return the key of a staged object."""
    parts = (name for name in export.place.names() if name.startswith("_batchkit/") and "/part-" in name)
    return f"{export.folder}/{next(parts)}"


@pytest.mark.fault("target-changed", at="s3")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (remove_a_part, "nothing is published"),
        (cut_a_part, "metadata"),
        (cut_a_part_and_keep_its_metadata, "bytes"),
    ],
)
def test_a_staged_object_that_somebody_changed_is_never_published(
    export: Export, change: Callable[[Export], None], named: str
) -> None:
    """What was staged and is not as it was ends the run before anything is visible; a restart is exact."""
    struck = export.run_struck(s3=meanwhile("/manifest.json", 2, lambda: change(export)))

    assert isinstance(struck.error, PermanentError), struck.error
    struck.insist_readable(named)
    insist_nothing_published(export)
    export.leg(export.server.url, export.s3.endpoint_url, restart=True)
    export.insist_exact()


@pytest.mark.fault("target-changed", at="s3")
@pytest.mark.parametrize("number", [3, 9] if FULL else [9])
def test_a_bucket_that_goes_ends_the_run(export: Export, number: int) -> None:
    """The run fails and names the bucket; what it had staged is missed, and a restart is exact."""
    seen = iter(range(1, 1_000_000))

    def strike(asked: Asked) -> Fault:
        if asked.method == "PUT" and "/part-" in asked.resource and next(seen) == number:
            remove_bucket(export)
        return None

    struck = export.run_struck(s3=strike)
    with export.s3.client() as client:
        client.create_bucket(Bucket=export.bucket)

    assert isinstance(struck.error, BatchkitError)
    struck.insist_readable(export.bucket)
    with pytest.raises((CannotResumeError, PermanentError)):
        export.leg(export.server.url, export.s3.endpoint_url)
    insist_nothing_published(export)
    export.leg(export.server.url, export.s3.endpoint_url, restart=True)
    export.insist_exact()


def away(asked: Asked) -> Fault:
    """Let nobody save a checkpoint, but the first one."""
    saving = "/checkpoint-" in asked.resource and asked.method == "PUT"
    return "reset" if saving and asked.number > 1 else None


@pytest.mark.fault("store-away", at="s3")
def test_nothing_gets_ahead_of_a_checkpoint_that_cannot_be_saved(export: Export) -> None:
    """Where the bucket takes no checkpoint the leg ends, and nothing is published that is not saved."""
    beside = replace(export, beside=True)
    struck = beside.run_struck(s3=away)

    assert struck.error is not None
    struck.insist_readable()
    insist_nothing_published(beside)
    beside.finish()


@pytest.mark.fault("checkpoint-damaged", at="s3")
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b'"read":', b'"read":1'),
        lambda _content: b"",
        lambda _content: b"\xff\xfe",
    ],
    ids=["cut off", "changed", "empty", "not text"],
)
def test_a_damaged_checkpoint_in_the_bucket_is_refused(
    export: Export, damage: Callable[[bytes], bytes]
) -> None:
    """A checkpoint that is not as it was saved is refused by its name, kept, and a restart is exact."""
    beside = replace(export, beside=True)
    assert beside.run_struck(s3=away).error is not None
    content = beside.place.content(beside.checkpoint)
    damaged = damage(content)
    assert damaged != content
    beside.place.store().put(beside.checkpoint, damaged)

    with pytest.raises(CannotResumeError, match="checkpoint") as caught:
        beside.leg(beside.server.url, beside.s3.endpoint_url)
    Struck(error=caught.value, struck=[], requests={}).insist_readable()
    assert beside.place.content(beside.checkpoint) == damaged
    beside.leg(beside.server.url, beside.s3.endpoint_url, restart=True)
    beside.insist_exact()


@pytest.mark.fault("checkpoint-damaged", at="s3")
def test_a_checkpoint_removed_from_the_bucket_stops_the_leg(export: Export) -> None:
    """A leg whose checkpoint somebody removed saves no other in its place: it stops, and says so."""
    beside = replace(export, beside=True)

    def strike(asked: Asked) -> Fault:
        if "/checkpoint-" in asked.resource and asked.method == "PUT" and asked.number == 2:
            beside.place.store().delete([beside.checkpoint])
        return None

    with beside.proxies(s3=strike) as (first, second), pytest.raises(SupersededError, match="removed it"):
        beside.leg(first.url, second.url)
    insist_nothing_published(beside)


@pytest.mark.fault("two-at-once", at="s3")
def test_a_second_run_at_once_is_refused(export: Export) -> None:
    """A run that finds another at work says which, ends, and disturbs nothing."""
    other = replace(export)
    other.folder = export.folder
    refused: list[BaseException] = []

    def begin_another() -> None:
        try:
            other.leg(other.server.url, other.s3.endpoint_url, run="run-2")
        except BatchkitError as error:
            refused.append(error)

    struck = export.run_struck(s3=meanwhile("/manifest.json", 2, begin_another))

    assert struck.error is None, struck.error
    assert "run-1" in str(refused[0])
    export.insist_exact()
