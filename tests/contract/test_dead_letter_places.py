"""Every place for dead letters keeps the same promises, on its real server."""

from __future__ import annotations

import dataclasses
import json
import secrets
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from airflow_batchkit.connectors.callable import CallableSink
from airflow_batchkit.connectors.elasticsearch import ElasticsearchDeadLetters
from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.letters import DeadLetterSource, LetterFilter
from airflow_batchkit.connectors.letters.purge import purge
from airflow_batchkit.connectors.letters.replay import replay_of
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.connectors.sql import SqlDeadLetters
from airflow_batchkit.engine.exceptions import RecordError, TransientError, UsageError
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget, Timeouts
from airflow_batchkit.engine.sink import BatchKey
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.testing.doubles import MemoryStore
from tests.support.connections import ServerConnections
from tests.support.letter_rows import letters_of
from tests.support.object_storage import FINISHED, after_batch, inherited, leg, publication

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_batchkit.connectors.letters.place import LetterSet, ReplayablePlace
    from airflow_batchkit.engine.dead_letters import DeadLetter
    from airflow_batchkit.engine.report import Report
    from airflow_batchkit.engine.sink import Leg

EXACT = (
    b'{"n":12345678901234567890,"f":1.0,"e":1e400}',
    b'{"a":1,"a":2}',
    rb'{"half":"\ud800","nul":"\u0000"}',
    '{"ü":"\u2028 🙂"}'.encode(),
    b'{ "spaced" : [ ] }',
)


@dataclass(frozen=True)
class Kept:
    """A place, and what opens it.

    :param place: its settings.
    :param connections: make clients.
    """

    place: ReplayablePlace
    connections: ServerConnections

    @property
    def context(self) -> OpenContext:
        """Return what it is opened with."""
        return OpenContext(
            connections=self.connections, timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC)
        )

    def put(self, leg: Leg, number: int, *bodies: bytes, **of_letters: Any) -> None:
        """Keep one batch of letters, as a leg that then vanishes."""
        with closing(self.place.open(self.context)) as opened:
            opened.start(leg)
            letters = letters_of(leg, number, *bodies, **of_letters)
            opened.put(BatchKey(partition=0, number=number), letters)
            opened.put(BatchKey(partition=0, number=number), letters)  # the answer to the first was lost

    def settle(self, leg: Leg, count: int) -> int:
        """Settle as a leg that has written nothing itself."""
        with closing(self.place.open(self.context)) as opened:
            opened.start(leg)
            return int(opened.settle(publication(0, FINISHED, dead_lettered=count))["count"])

    def reveal(self, leg: Leg, count: int) -> int:
        """Show what there is as a leg whose run fails."""
        with closing(self.place.open(self.context)) as opened:
            opened.start(leg)
            return opened.reveal(publication(0, FINISHED, dead_lettered=count))

    def sets(self) -> list[LetterSet]:
        """Return the sets that readers find."""
        with closing(self.place.open_letters(self.context)) as opened:
            return list(opened.sets())

    def letters(self) -> list[DeadLetter]:
        """Return the letters that readers find."""
        with closing(self.place.open_letters(self.context)) as opened:
            return [line.letter for found in opened.sets() for line in opened.lines(found)]

    def run(self, job: Job, run: str) -> Report:
        """Run a job to its end."""
        return Pipeline(
            job,
            identity=RunIdentity(run=run),
            store=MemoryStore(),
            key=job.name,
            connections=self.connections,
        ).run()


@pytest.fixture(
    params=[
        "file",
        pytest.param("s3", marks=pytest.mark.s3),
        pytest.param("elasticsearch", marks=pytest.mark.elasticsearch),
        "sqlite",
        pytest.param("postgres", marks=pytest.mark.postgres),
    ]
)
def kept(request: pytest.FixtureRequest) -> Iterator[Kept]:
    """Give an empty place of each kind."""
    folder = request.getfixturevalue("tmp_path")
    if request.param == "file":
        yield Kept(DeadLetters(f"file://{folder}/letters"), ServerConnections())
    elif request.param == "s3":
        server = request.getfixturevalue("s3_server")
        settings = {
            "endpoint_url": server.endpoint_url,
            "access_key": server.access_key,
            "secret_key": server.secret_key,
            "region": "us-east-1",
        }
        bucket = request.getfixturevalue("bucket")
        yield Kept(DeadLetters(f"s3://{bucket}/letters"), ServerConnections(s3=settings))
    elif request.param == "elasticsearch":
        server = request.getfixturevalue("elasticsearch_server")
        index = f"letters-{secrets.token_hex(4)}"
        yield Kept(ElasticsearchDeadLetters(index=index), ServerConnections(elasticsearch_url=server.url))
        server.request("DELETE", f"/{index}?ignore_unavailable=true")
    elif request.param == "sqlite":
        yield Kept(SqlDeadLetters(conn_id="sql"), ServerConnections(sqlite_path=f"{folder}/letters.db"))
    else:
        server = request.getfixturevalue("postgres_server")
        database = request.getfixturevalue("database")
        yield Kept(
            SqlDeadLetters(conn_id="sql", table='dead "letters'),
            ServerConnections(postgres=dataclasses.asdict(server.endpoint(database))),
        )


def test_every_byte_of_a_record_is_kept(kept: Kept) -> None:
    """Literals that no number type holds, doubled keys, half surrogate pairs and spaces survive."""
    kept.put(leg("a"), 1, *EXACT)
    assert kept.settle(leg("b", inherited=inherited("a", after_batch(1))), len(EXACT)) == len(EXACT)

    assert [bytes(letter.record) for letter in kept.letters()] == list(EXACT)
    assert [letter.id for letter in kept.letters()] == [f"1.{position}" for position in range(len(EXACT))]


def test_what_is_staged_is_not_seen(kept: Kept) -> None:
    """Until the run ends, and for what a killed leg had not saved, there is nothing to find."""
    kept.put(leg("a"), 1, b"{}", b"{}")

    assert kept.sets() == []
    # The leg was killed before its first save: nothing of it counts.
    assert kept.settle(leg("b", inherited=inherited("a", after_batch(0))), 0) == 0
    assert kept.sets() == []


def test_the_legs_of_a_run_add_up(kept: Kept) -> None:
    """Of each leg counts what it had saved, in the order of the legs; settled twice, it is the same."""
    first, second = leg("a"), leg("b", inherited=inherited("a", after_batch(1)))
    kept.put(first, 1, b'{"n":1}')
    kept.put(first, 2, b'{"lost":2}')
    kept.put(second, 1, b'{"n":2}', b'{"n":3}')
    last = leg("c", inherited=inherited("b", after_batch(1)))

    assert kept.settle(last, 3) == 3
    again = leg("d", inherited=inherited("c", after_batch(0)))
    assert kept.settle(again, 3) == 3

    assert [bytes(letter.record) for letter in kept.letters()] == [b'{"n":1}', b'{"n":2}', b'{"n":3}']
    (found,) = kept.sets()
    assert (found.job, found.run, found.records, found.complete) == ("job", "run-1", 3, True)


def test_two_runs_share_a_place(kept: Kept) -> None:
    """Each run's letters are a set of their own; a purge of one leaves the other."""
    for run in ("run-1", "run-2"):
        kept.put(leg("a", run=run), 1, json.dumps({"run": run}).encode())
        kept.settle(leg("b", run=run, inherited=inherited("a", after_batch(1))), 1)
    assert [found.run for found in kept.sets()] == ["run-1", "run-2"]

    with closing(kept.place.open_letters(kept.context)) as opened:
        assert purge(opened, kept.sets()[0], before=0.0) == 0
        assert purge(opened, kept.sets()[0], before=None) == 1

    assert [found.run for found in kept.sets()] == ["run-2"]
    with closing(kept.place.open_letters(kept.context)) as opened:
        assert purge(opened, kept.sets()[0], before=4e9) == 1
    assert kept.letters() == []


def test_a_failed_run_shows_its_letters(kept: Kept) -> None:
    """They are marked as of a run that has not completed, and the run goes on with them."""
    kept.put(leg("a"), 1, b'{"n":1}')
    second = leg("b", inherited=inherited("a", after_batch(1)))
    assert kept.reveal(second, 1) == 1
    assert [found.complete for found in kept.sets()] == [False]

    kept.put(leg("c", inherited=inherited("b", after_batch(0))), 1, b'{"n":2}')
    assert kept.settle(leg("d", inherited=inherited("c", after_batch(1))), 2) == 2

    assert [found.complete for found in kept.sets()] == [True]
    assert [bytes(letter.record) for letter in kept.letters()] == [b'{"n":1}', b'{"n":2}']


def orders() -> list[dict[str, Any]]:
    """Make up orders."""
    return [{"number": str(number)} for number in range(12)]


def refuse(*numbers: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Make a transform that gives up some orders."""

    def transform(order: dict[str, Any]) -> dict[str, Any]:
        if order["number"] in numbers:
            raise RecordError("not this one")
        return order

    return transform


def exporting(kept: Kept, taken: list[str], *refused: str) -> Job:
    """Make a job that keeps what it takes in a list."""

    def take(document: dict[str, Any], *, idempotency_key: str) -> None:
        del idempotency_key
        taken.append(document["number"])

    return Job(
        name="dag.export",
        source=IterableSource(records=orders, key="number"),
        sink=CallableSink(function=take),
        transform=refuse(*refused),
        batch=BatchPolicy(max_records=5),
        error_budget=ErrorBudget(max_dead_letters=12),
        dead_letters=kept.place,
    )


def replaying(
    kept: Kept,
    taken: list[str],
    *refused: str,
    only: LetterFilter | None = None,
    run: str | None = None,
) -> Job:
    """Make the replay of that job's letters."""
    job = dataclasses.replace(exporting(kept, taken, *refused), name="dag.replay")
    return replay_of(job, DeadLetterSource(kept.place, only=only or LetterFilter(), run=run))


def test_a_replay_takes_out_what_succeeds(kept: Kept) -> None:
    """What succeeds leaves the place; what fails again keeps its first time; then nothing is left to do."""
    taken: list[str] = []
    report = kept.run(exporting(kept, taken, "2", "4", "6", "8"), "run-1")
    assert report.dead_letters["count"] == 4
    before = {letter.id: letter for letter in kept.letters()}
    taken.clear()

    only = LetterFilter(ids=["2", "4", "6"])
    report = kept.run(replaying(kept, taken, "6", only=only), "replay-1")
    assert (report.counts["read"], report.counts["written"], report.dead_letters["count"]) == (3, 2, 1)
    found = {letter.id: letter for letter in kept.letters()}
    assert sorted(found) == ["6", "8"]
    assert (found["6"].replays, found["6"].first_at) == (1, before["6"].at)
    assert msgspec.json.encode(found["8"]) == msgspec.json.encode(before["8"])

    kept.run(replaying(kept, taken), "replay-2")
    assert kept.run(replaying(kept, taken), "replay-3").counts["read"] == 0
    assert (sorted(taken), kept.letters()) == (["2", "4", "6", "8"], [])


def test_a_replay_takes_what_its_filter_means(kept: Kept) -> None:
    """Letters are chosen by the time they were given up, by id and by error; the others stay."""
    day = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
    kept.put(leg("a"), 1, b'{"number":"a"}', b'{"number":"b"}', at=day - 0.001)
    kept.put(leg("b", inherited=inherited("a", after_batch(1))), 2, b'{"number":"c"}', at=day)
    kept.put(
        leg("c", inherited=inherited("b", after_batch(2))), 3, b'{"number":"d"}', at=day + 1, error_type="F"
    )
    kept.settle(leg("d", inherited=inherited("c", after_batch(3))), 4)
    taken: list[str] = []

    def replay(name: str, **only: Any) -> list[str]:
        taken.clear()
        kept.run(replaying(kept, taken, only=LetterFilter(**only)), name)
        return sorted(taken)

    assert replay("1", until="2026-11-22", ids=["1.1", "2.0"]) == ["b"]
    assert replay("2", since="2026-11-22T00:00:00Z", error_types=["E"]) == ["c"]
    assert replay("3", until="2026-11-22T00:00:01Z", error_types=["F"]) == []
    assert replay("4", error_types=["F"]) == ["d"]
    assert [letter.id for letter in kept.letters()] == ["1.0"]


def test_a_failed_run_does_not_stand_in_the_way(kept: Kept) -> None:
    """A replay takes the run that completed; the failed one is refused by name, with what to do instead."""
    kept.put(leg("a", run="failed"), 1, b'{"number":"1"}')
    kept.reveal(leg("b", run="failed", inherited=inherited("a", after_batch(1))), 1)
    taken: list[str] = []
    with pytest.raises(UsageError, match="of a run that failed: mend what failed and clear its task"):
        kept.run(replaying(kept, taken), "too early")

    kept.put(leg("c"), 1, b'{"number":"2"}')
    kept.settle(leg("d", inherited=inherited("c", after_batch(1))), 1)
    assert kept.run(replaying(kept, taken), "replay").counts["read"] == 1
    assert taken == ["2"]

    with pytest.raises(UsageError, match="clear its task"):
        kept.run(replaying(kept, taken, run="failed"), "by name")
    assert [found.run for found in kept.sets() if found.records] == ["failed"]


def test_a_failed_run_is_no_stale_one(kept: Kept, tmp_path: Path) -> None:
    """Where the output shows another run, the letters of a failed one are refused as such."""
    sink = ObjectStorageSink(url=f"file://{tmp_path}/out")
    job = dataclasses.replace(exporting(kept, [], "2"), sink=sink)
    kept.run(job, "run-1")
    kept.put(leg("a", run="run-2", job=job.name), 1, b'{"number":"1"}')
    kept.reveal(leg("b", run="run-2", job=job.name, inherited=inherited("a", after_batch(1))), 1)

    def replay(run: str | None) -> Job:
        again = dataclasses.replace(job, name="dag.replay", transform=None)
        return replay_of(again, DeadLetterSource(kept.place, run=run))

    with pytest.raises(UsageError, match="clear its task"):
        kept.run(replay("run-2"), "by name")
    with pytest.raises(UsageError, match="are stale"):
        kept.run(replay("run-3"), "mistyped")
    assert kept.run(replay(None), "replay").counts["written"] == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_settling_that_fails_anywhere_is_done_again(kept: Kept, when: str) -> None:
    """Ended before or after each of its effects, the next leg's settling leaves the same letters."""
    kept.put(leg("a"), 1, b'{"n":1}', b'{"n":2}')
    tokens = iter("bcdef0123456789")
    known = inherited("a", after_batch(1))  # what the checkpoint says of the leg before
    for moment in range(1, 15):
        happened: list[str] = []

        def fail(name: str, point: str, moment: int = moment, happened: list[str] = happened) -> None:
            if name.startswith("dead_letters.") and point == when:
                happened.append(name)
                if len(happened) == moment:
                    raise TransientError("ended here")

        token = next(tokens)
        try:
            with probing(fail):
                kept.settle(leg(token, inherited=known), 2)
        except TransientError:
            if happened != ["dead_letters.start"]:  # else no checkpoint names that leg
                known = inherited(token, after_batch(0))
        else:
            break
    else:
        pytest.fail("it never came to its end")

    assert [bytes(letter.record) for letter in kept.letters()] == [b'{"n":1}', b'{"n":2}']
