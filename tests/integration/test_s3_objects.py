"""What is sent to S3 with each request and each object, seen by a proxy and by the API itself."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_batchkit.connectors.object_storage import S3Settings
from airflow_batchkit.engine.exceptions import TargetHeldError, UsageError
from tests.support.command_line import environment_of, run
from tests.support.object_storage import Place, S3Connections, leg, make_place, publication, write
from tests.support.s3_exports import Exports, published
from tests.support.s3_proxy import Asked, Fault, Refusal, s3_proxy
from tests.support.versitygw import program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.s3 import S3Server

pytestmark = [
    pytest.mark.s3,
    pytest.mark.skipif(program() is not None, reason="versitygw has neither encryption nor storage classes"),
]

KEY = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
SETTINGS = S3Settings(
    server_side_encryption="aws:kms",
    sse_kms_key_id=KEY,
    bucket_key_enabled=True,
    storage_class="STANDARD_IA",
    acl="bucket-owner-full-control",
    tags={"team": "search", "cost center": "a+b"},
    expected_bucket_owner="123456789012",
    requester_pays=True,
)
TAGS = [{"Key": "cost center", "Value": "a+b"}, {"Key": "team", "Value": "search"}]


@dataclass
class Recorder:
    """Notes every request; refuses those that a test says."""

    requests: list[Asked] = field(default_factory=list)

    def __call__(self, asked: Asked, status: int | None) -> Refusal | None:
        """Be the judge."""
        if status is None:
            self.requests.append(asked)
        return None

    def writes(self) -> dict[str, Asked]:
        """Return the requests that made an object, by its key below the bucket."""
        return {
            urlsplit(asked.path).path.split("/", 2)[2]: asked
            for asked in self.requests
            if asked.method == "PUT" and "partNumber" not in parse_qs(urlsplit(asked.path).query)
        }


def test_every_kind_of_object_is_written_as_it_should(s3_server: S3Server, bucket: str) -> None:
    """All requests name the owner; all objects are encrypted; final ones have tags, parts the class."""
    recorder = Recorder()
    with s3_proxy(s3_server.endpoint_url, judge=recorder) as url:
        Exports(S3Connections(endpoint_url=url), bucket, SETTINGS).run_in_two_legs("run-1")
    for asked in recorder.requests:
        assert asked.headers["x-amz-expected-bucket-owner"] == "123456789012", asked.path
        assert asked.headers["x-amz-request-payer"] == "requester", asked.path
    writes = recorder.writes()
    for key, asked in writes.items():
        assert asked.headers["x-amz-server-side-encryption"] == "aws:kms", key
        assert asked.headers["x-amz-server-side-encryption-aws-kms-key-id"] == KEY, key
        assert asked.headers["x-amz-server-side-encryption-bucket-key-enabled"] == "true", key
        assert asked.headers["x-amz-acl"] == "bucket-owner-full-control", key
        if "x-amz-copy-source" in asked.headers:
            assert asked.headers["x-amz-source-expected-bucket-owner"] == "123456789012", key
        final = "_batchkit/" not in key or key.endswith(".trial")
        assert ("x-amz-tagging" in asked.headers) == final, key
        part = final and "/manifest.json" not in key and "/_SUCCESS" not in key and "/letters.json" not in key
        assert asked.headers.get("x-amz-storage-class") == ("STANDARD_IA" if part else None), key
    kinds = {"part-", "letters-", "leg.json", "leg.json.trial", "owner.json", "manifest.json", "_SUCCESS"}
    assert {kind for kind in kinds if any(kind in key for key in writes)} == kinds


def test_copies_have_what_they_were_asked_for(s3_server: S3Server, bucket: str) -> None:
    """What lies there in the end has encryption, class and tags, though a copy inherits none of them."""
    Exports(S3Connections(endpoint_url=s3_server.endpoint_url), bucket, SETTINGS).leg("run-1")
    found: dict[str, tuple[object, ...]] = {}
    with s3_server.client() as client:
        for listed in client.list_objects_v2(Bucket=bucket)["Contents"]:
            key = listed["Key"]
            head = client.head_object(Bucket=bucket, Key=key)
            tags = client.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
            assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", KEY)
            name = key.rpartition("/")[2].partition("-")[0]
            found[name] = (head.get("StorageClass"), sorted(tags, key=lambda tag: tag["Key"]))
    assert found == {
        "part": ("STANDARD_IA", TAGS),
        "letters": ("STANDARD_IA", TAGS),
        "manifest.json": (None, TAGS),
        "letters.json": (None, TAGS),
        "_SUCCESS": (None, TAGS),
        "owner.json": (None, []),
    }


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Refusal(400, "AccessControlListNotSupported"), "leave acl out of s3_settings"),
        (Refusal(400, "InvalidStorageClass"), "does not know this storage_class"),
        (Refusal(400, "InvalidTag"), "does not accept these tags"),
        (Refusal(400, "KMS.DisabledException"), "the KMS key is disabled"),
        (Refusal(400, "KMS.NotFoundException"), "no such KMS key"),
        (Refusal(400, "KMS.KMSInvalidStateException"), r"cannot be used \(made up"),
        (Refusal(501, "NotImplemented"), "request_checksum_calculation=when_required"),
    ],
)
def test_a_setting_that_the_store_refuses_is_told_before_any_work(
    s3_server: S3Server, bucket: str, answer: Refusal, said: str
) -> None:
    """A copy with the final settings is rehearsed: what would fail after hours fails at once, in one line."""
    effects: list[str] = []

    def refuse_copies(asked: Asked, status: int | None) -> Refusal | None:
        return answer if status is None and "x-amz-copy-source" in asked.headers else None

    with s3_proxy(s3_server.endpoint_url, judge=refuse_copies) as url:
        exports = Exports(S3Connections(endpoint_url=url), bucket, SETTINGS)
        with pytest.raises(Exception, match=said) as refused:
            exports.leg("run-1", probe=lambda name, _: effects.append(name))
    assert "\n" not in str(refused.value)
    assert "sink.put" not in effects
    # Nobody has to wait for the lease of a run that cannot begin.
    assert effects[-2:] == ["sink.release", "sink.release"]


@pytest.mark.parametrize("fault", ["ignore conditions", Refusal(501, "NotImplemented")])
def test_a_store_without_conditional_writes_is_said_once_and_works(
    s3_server: S3Server, bucket: str, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """Where conditions are dropped, or refused, runs publish all the same; the log says what is missing."""

    def refuse(asked: Asked, status: int | None) -> Refusal | None:
        conditional = any(name.startswith("if-") for name in asked.headers)
        return fault if isinstance(fault, Refusal) and conditional and status is None else None

    drop = (lambda *_: None) if isinstance(fault, Refusal) else lambda *_: fault
    with s3_proxy(s3_server.endpoint_url, drop, refuse) as url, caplog.at_level(logging.WARNING):
        place = Place(url=f"s3://{bucket}/orders", connections=S3Connections(endpoint_url=url))
        for token, run in (("1", "run-1"), ("2", "run-2")):
            caplog.clear()
            sink = place.sink()
            sink.start(leg(token, run=run, generation=f"0{token}" * 4))
            write(sink, 1, [run])
            with pytest.raises(TargetHeldError):
                place.sink().start(leg("3", run="run-3", generation="03030303"))
            sink.publish(publication(1))
            sink.release()
            warnings = [record for record in caplog.records if "ignores conditional writes" in record.message]
            assert "max_active_runs=1" in warnings[0].message
        assert place.ids() == ["run-2"]
        assert place.manifest()["conditional_writes"] is False


def test_a_versioned_bucket_shows_the_newest_output(s3_server: S3Server, bucket: str) -> None:
    """Where deletions only leave markers, readers see one output all the same, and older versions stay."""
    versioned = f"{bucket}-v"  # stays until the server ends: moto cannot delete every version
    with s3_server.client() as client:
        client.create_bucket(Bucket=versioned)
        client.put_bucket_versioning(Bucket=versioned, VersioningConfiguration={"Status": "Enabled"})
        exports = Exports(S3Connections(endpoint_url=s3_server.endpoint_url), versioned, None)
        exports.run_in_two_legs("run-1")
        exports.run_in_two_legs("run-2")
        assert published(s3_server, versioned) == {"run-2"}
        left = client.list_objects_v2(Bucket=versioned)["Contents"]
        assert not [found["Key"] for found in left if "_batchkit/run" in found["Key"]]
        markers = client.list_object_versions(Bucket=versioned)["DeleteMarkers"]
        assert [marker for marker in markers if "/_batchkit/run-1/" in marker["Key"]]


def test_somebody_elses_bucket_is_refused(request: pytest.FixtureRequest) -> None:
    """The account that owns the bucket is compared by S3; a denial names it as one of the reasons."""
    place = make_place("s3", request)

    def not_theirs(asked: Asked, status: int | None) -> Refusal | None:
        wrong = asked.headers.get("x-amz-expected-bucket-owner") == "999999999999"
        return Refusal(403, "AccessDenied", message="Access Denied") if wrong and status is None else None

    with s3_proxy(place.connections.endpoint_url, judge=not_theirs) as url:
        behind = replace(place, connections=replace(place.connections, endpoint_url=url))
        with pytest.raises(UsageError, match="whether the bucket belongs to account 999999999999"):
            behind.sink(s3_settings=S3Settings(expected_bucket_owner="999999999999"))


def test_the_command_line_takes_address_and_settings_from_the_url(
    s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    """``batchkit copy`` reaches a store of one's own by path style, and writes as the URL says."""
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        database.executemany("INSERT INTO orders VALUES (?)", ((number,) for number in range(5)))
    environment = {**environment_of(tmp_path / "state"), **s3_server.environment()}
    del environment["AWS_ENDPOINT_URL_S3"]
    parameters = (
        f"endpoint_url={s3_server.endpoint_url}&addressing_style=path&storage_class=STANDARD_IA&tags=a=b"
    )
    done = run(
        "copy",
        f"sqlite://{tmp_path}/shop.db?table=orders",
        f"s3://{bucket}/orders?{parameters}",
        "--compression",
        "zstd",
        environment=environment,
    )
    assert done.returncode == 0, done.stderr
    place = Place(url=f"s3://{bucket}/orders", connections=S3Connections(endpoint_url=s3_server.endpoint_url))
    assert place.ids() == ["0", "1", "2", "3", "4"]
    (part,) = place.manifest()["parts"]
    with s3_server.client() as client:
        key = f"orders/{part['key']}"
        assert client.head_object(Bucket=bucket, Key=key)["StorageClass"] == "STANDARD_IA"
        tags = client.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    assert tags == [{"Key": "a", "Value": "b"}]
