"""A place for dead letters that cannot be written, or is gone: the run fails, and no record is forgotten."""

from __future__ import annotations

import dataclasses
import itertools
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import pytest

from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.engine.exceptions import BatchkitError, RecordError
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, ErrorBudget
from airflow_batchkit.testing.doubles import MemoryStore
from tests.support.elasticsearch import ADMIN
from tests.support.elasticsearch_access import new_key, trusted
from tests.support.elasticsearch_folder import PASSWORD
from tests.support.folder_runs import small_disk
from tests.support.letter_boxes import IndexBox, LetterBox, ObjectBox, TableBox
from tests.support.object_storage import Place, S3Connections, make_place
from tests.support.published import Published
from tests.support.s3_exports import BASIC_ACTIONS
from tests.support.s3_policy import PolicyJudge, without
from tests.support.s3_proxy import s3_proxy

ORDERS = [{"number": str(number), "amount": 1.5} for number in range(30)]
GIVEN_UP = ("3", "13", "27")
RIGHTS = ("create_doc", "index", "delete", "read", "view_index_metadata", "maintenance")
FEWER = ("delete", "read", "view_index_metadata", "maintenance")


def some_given_up(order: dict[str, Any]) -> dict[str, Any]:
    """Give up some of the orders."""
    if order["number"] in GIVEN_UP:
        raise RecordError("not this one")
    return order


class BehindFirstLetter:
    """A probe that does something when one letter is kept, and no other is on its way.

    :param act: what.
    """

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._begun = itertools.count(1)
        self._first_is_kept = threading.Event()
        self._acted = threading.Event()

    def __call__(self, name: str, when: Literal["before", "after"]) -> None:
        """Be a probe."""
        if name != "dead_letters.put":
            return
        if when == "after":
            self._first_is_kept.set()
            return
        number = next(self._begun)
        if number == 2:
            assert self._first_is_kept.wait(10)
            self._act()
            self._acted.set()
        elif number > 2:
            assert self._acted.wait(10)


@dataclass(frozen=True)
class Refusing:
    """A place for letters that can be made to refuse them.

    :param box: the place, as the job is given it.
    :param refuse: makes it refuse.
    :param allow: mends it.
    :param says: what the run's failure has to name, as a regular expression.
    :param gone: what was there is lost: mended, the run has to begin anew.
    :param maker: the place as somebody sees it who may make it; None: as the job.
    """

    box: LetterBox
    refuse: Callable[[], object]
    allow: Callable[[], object]
    says: str
    gone: bool = False
    maker: LetterBox | None = None


def on_a_disk(request: pytest.FixtureRequest) -> Iterator[Refusing]:
    """Give a folder whose file system becomes read-only."""
    with small_disk(request.getfixturevalue("tmp_path") / "disk", pages=200) as disk:
        box = ObjectBox(
            Place(url=f"file://{disk.folder}/letters", connections=S3Connections(endpoint_url=""))
        )
        yield Refusing(
            box,
            partial(disk.remount, "ro"),
            partial(disk.remount, "rw"),
            "letters.*(read-only|permission denied)",
        )


def in_a_bucket(request: pytest.FixtureRequest) -> Iterator[Refusing]:
    """Give a bucket whose user may not put any more."""
    server, bucket = request.getfixturevalue("s3_server"), request.getfixturevalue("bucket")
    home = f"arn:aws:s3:::{bucket}"
    whole = {"Statement": [{"Action": BASIC_ACTIONS, "Resource": [home, f"{home}/*"]}]}
    judge = PolicyJudge(whole)
    with s3_proxy(server.endpoint_url, judge=judge) as url:
        connections = S3Connections(
            endpoint_url=url, access_key=server.access_key, secret_key=server.secret_key
        )
        yield Refusing(
            ObjectBox(Place(url=f"s3://{bucket}/letters", connections=connections)),
            lambda: setattr(judge, "policy", without(whole, "s3:PutObject")),
            lambda: setattr(judge, "policy", whole),
            f"{bucket}.*s3:PutObject|s3:PutObject.*{bucket}",
        )


def in_a_bucket_that_goes(request: pytest.FixtureRequest) -> Iterator[Refusing]:
    """Give a bucket that is deleted."""
    place = make_place("s3", request)
    server, bucket = request.getfixturevalue("s3_server"), request.getfixturevalue("bucket")

    def remove() -> None:
        server.empty(bucket)

    def make() -> None:
        with server.client() as client:
            client.create_bucket(Bucket=bucket)

    yield Refusing(ObjectBox(place), remove, make, f"{bucket}.*(NoSuchBucket|bucket)", gone=True)


def in_an_index(how: str, request: pytest.FixtureRequest) -> Iterator[Refusing]:
    """Give an index that is blocked, closed or deleted."""
    server = request.getfixturevalue("elasticsearch_server")
    box = IndexBox(server, f"letters-{secrets.token_hex(4)}")
    ask = partial(partial, server.request)
    settings = f"/{box.index}/_settings"
    refuse, allow, says = {
        "blocked": (
            ask("PUT", settings, {"index.blocks.write": True}),
            ask("PUT", settings, {"index.blocks.write": None}),
            "403 cluster_block_exception.*take the block off",
        ),
        "closed": (
            ask("POST", f"/{box.index}/_close"),
            ask("POST", f"/{box.index}/_open?wait_for_active_shards=1"),
            "(index_closed|cluster_block)_exception",
        ),
        "deleted": (
            ask("DELETE", f"/{box.index}"),
            ask("DELETE", f"/{box.index}?ignore_unavailable=true"),
            "404 index_not_found_exception",
        ),
    }[how]
    yield Refusing(box, refuse, allow, f"{box.index}.*{says}", gone=how == "deleted")
    server.request("DELETE", f"/{box.index}?ignore_unavailable=true")


def with_a_key(request: pytest.FixtureRequest) -> Iterator[Refusing]:
    """Give an index whose key may not write there any more."""
    server = request.getfixturevalue("secured_elasticsearch_server")
    index = f"letters-{secrets.token_hex(4)}"
    key = new_key(server, {index: RIGHTS})

    def grant(*rights: str) -> None:
        roles = {"export": {"cluster": [], "indices": [{"names": [index], "privileges": rights}]}}
        server.request("PUT", f"/_security/api_key/{key.id}", {"role_descriptors": roles})

    yield Refusing(
        IndexBox(server, index, dataclasses.asdict(trusted(server, api_key=key.encoded))),
        partial(grant, *FEWER),
        partial(grant, *RIGHTS),
        f"{index}.*403 security_exception",
        maker=IndexBox(server, index, dataclasses.asdict(trusted(server, username=ADMIN, password=PASSWORD))),
    )
    server.request("DELETE", f"/{index}?ignore_unavailable=true")


def in_a_table(how: str, request: pytest.FixtureRequest) -> Iterator[Refusing]:
    """Give a table of somebody else's, from which rights are taken back, or which is dropped."""
    server, database = request.getfixturevalue("postgres_server"), request.getfixturevalue("database")
    endpoint = dataclasses.asdict(server.endpoint(database))
    role, both = f"writer_{secrets.token_hex(4)}", "letters, letters_notes"
    run = partial(partial, server.run, database=database)
    server.run(f"CREATE ROLE {role} LOGIN", database=database)
    maker = TableBox(endpoint, "letters")
    if how == "dropped":
        yield Refusing(
            maker, run(f"DROP TABLE {both}"), lambda: None, "letters.*does not exist.*42P01", gone=True
        )
    else:
        allow = run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {both} TO {role}")
        box = TableBox(endpoint, "letters", user=role)
        yield Refusing(
            box,
            run(f"REVOKE INSERT ON {both} FROM {role}"),
            allow,
            "denied for table letters.*42501.*INSERT",
            maker=maker,
        )
        server.run(f"DROP OWNED BY {role}", database=database)
    server.run(f"DROP ROLE {role}")


AT_S3 = (pytest.mark.s3, pytest.mark.fault("letters-refused", at="s3"))
AT_ELASTICSEARCH = (pytest.mark.elasticsearch, pytest.mark.fault("letters-refused", at="elasticsearch"))
AT_POSTGRES = (pytest.mark.postgres, pytest.mark.fault("letters-refused", at="postgres"))
TAKEN_BACK = [
    pytest.param(on_a_disk, id="disk", marks=pytest.mark.fault("letters-refused", at="file")),
    pytest.param(in_a_bucket, id="bucket", marks=AT_S3),
    pytest.param(partial(in_an_index, "blocked"), id="index blocked", marks=AT_ELASTICSEARCH),
    pytest.param(partial(in_an_index, "closed"), id="index closed", marks=AT_ELASTICSEARCH),
    pytest.param(with_a_key, id="key", marks=AT_ELASTICSEARCH),
    pytest.param(partial(in_a_table, "revoked"), id="table", marks=AT_POSTGRES),
]
GONE = [
    pytest.param(in_a_bucket_that_goes, id="bucket gone", marks=AT_S3),
    pytest.param(partial(in_an_index, "deleted"), id="index deleted", marks=AT_ELASTICSEARCH),
    pytest.param(partial(in_a_table, "dropped"), id="table dropped", marks=AT_POSTGRES),
]


@pytest.fixture
def refusing(request: pytest.FixtureRequest) -> Iterator[Refusing]:
    """Give a place of each kind."""
    yield from request.param(request)


class Exports:
    """Exports of the orders into a folder, with their letters elsewhere.

    :param output: of the run that is looked at.
    """

    def __init__(self, output: Place) -> None:
        self._output = output
        self._store = MemoryStore()

    @property
    def read(self) -> int:
        """How far the run has come, as its checkpoint says."""
        checkpoint = self._store.checkpoint("run-1")
        return 0 if checkpoint is None else checkpoint.counts.read

    def run(self, box: LetterBox, *, name: str = "run-1", **how: Any) -> None:
        """Run one leg.

        :param name: of the run; that of ``run-0`` gives up nothing.
        """
        job = Job(
            name="dag.export",
            source=IterableSource(records=lambda: ORDERS, key="number"),
            sink=ObjectStorageSink(url=self._output.below(name).url),
            transform=some_given_up if name == "run-1" else None,
            batch=BatchPolicy(max_records=5),
            error_budget=ErrorBudget(max_dead_letters=len(GIVEN_UP)),
            dead_letters=box.place,
            batch_retry=BatchRetry(max_tries=2, first_wait=timedelta(milliseconds=10)),
        )
        identity = RunIdentity(run=name, **how)
        Pipeline(job, identity=identity, store=self._store, key=name, connections=box.connections).run()

    def check(self, box: LetterBox) -> None:
        """Compare source, output and letters, record by record."""
        output = self._output.below("run-1")
        verified = Published(output).verify()
        box.verify(verified)
        assert verified.whole
        lines = {line.pop("_id"): line for line in map(json.loads, output.lines())}
        letters = {letter["id"]: letter["record"] for letter in box.letters()}
        assert tuple(letters) == GIVEN_UP
        assert len(lines) == output.manifest()["counts"]["written"] == len(ORDERS) - len(letters)
        assert {**lines, **letters} == {order["number"]: order for order in ORDERS}
        assert box.leftovers() == []


@pytest.fixture
def exports(request: pytest.FixtureRequest, refusing: Refusing) -> Exports:
    """Make the place, by a run that gives up nothing, and let the job write there."""
    exports = Exports(make_place("file", request))
    exports.run(refusing.maker or refusing.box, name="run-0")
    refusing.allow()
    return exports


def check_failure(run: Callable[[], None], says: str) -> None:
    """Make sure that a run fails by its cause, in one line."""
    with pytest.raises(BatchkitError, match=says) as failed:
        run()
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("refusing", [*TAKEN_BACK, *GONE], indirect=True)
def test_a_place_that_refuses_a_letter_fails_the_run(exports: Exports, refusing: Refusing) -> None:
    """The run fails by the cause, before the record; mended, it goes on or begins anew, with nothing lost."""
    with probing(BehindFirstLetter(refusing.refuse)):
        check_failure(lambda: exports.run(refusing.box), refusing.says)

    assert exports.read <= 10, "the cursor has passed the record"
    refusing.allow()
    exports.run(refusing.box, clear_marker="1", restart=refusing.gone)
    exports.check(refusing.box)


@pytest.mark.parametrize("refusing", TAKEN_BACK, indirect=True)
def test_a_place_that_refuses_from_the_beginning_fails_the_run_before_any_work(
    exports: Exports, refusing: Refusing
) -> None:
    """Nothing is read and nothing written; mended, the run does all of its work."""
    refusing.refuse()

    check_failure(lambda: exports.run(refusing.box), refusing.says)

    assert exports.read == 0
    refusing.allow()
    exports.run(refusing.box, clear_marker="1")
    exports.check(refusing.box)
