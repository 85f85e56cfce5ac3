"""The faults that a run has to survive, what must hold after each, and where it has to be shown.

A test says which fault it shows, and where, by ``@pytest.mark.fault("pushback", at="s3")``. The table in
``docs/reliability.md`` is made of these marks and of what a run of the marked tests counted
(:mod:`tests.support.fault_report`); ``tests/faults/test_fault_table.py`` fails for a fault without its test.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

Place: TypeAlias = Literal["engine", "elasticsearch", "s3", "file", "sqlite", "postgres", "airflow"]
PLACES: tuple[Place, ...] = get_args(Place)
NAMES: Mapping[Place, str] = {
    "engine": "engine",
    "elasticsearch": "Elasticsearch",
    "s3": "S3",
    "file": "files",
    "sqlite": "SQLite",
    "postgres": "PostgreSQL",
    "airflow": "Airflow",
}
#: Name of the mark, and of the property of a test's report that says the same.
FAULT = "fault"
TESTS = Path(__file__).parent.parent
FULL = os.environ.get("BATCHKIT_FAULTS") == "full"
"""Whether sweeps shall be as wide as they can: ``make faults``, not the run of all tests."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of trouble.

    :param title: what happens.
    :param promise: what holds then and afterwards; always besides: source and output are equal, record by
        record, nothing is doubled, and the counts add up.
    :param at: where a test has to show it.
    :param elsewhere: why some other place needs none.
    """

    title: str
    promise: str
    at: frozenset[Place]
    elsewhere: Mapping[Place, str] = field(default_factory=dict)


def _at(*places: Place) -> frozenset[Place]:
    return frozenset(places)


FAULTS: Mapping[str, Fault] = {
    "sigkill": Fault(
        title="SIGKILL, out of memory, power: the process ends at any moment",
        promise="The next leg goes on after the last save; at most one window or one second is done again.",
        at=_at("engine", "elasticsearch", "s3", "file", "sqlite", "postgres", "airflow"),
    ),
    "sigterm": Fault(
        title="SIGTERM, Ctrl-C, a deploy, mark failed",
        promise="The checkpoint stands within 3 s, no retry is used up, and it never ends in success.",
        at=_at("engine", "file", "airflow"),
    ),
    "publish-killed": Fault(
        title="SIGKILL at each step of publishing",
        promise="A reader by the manifest sees the old output or the new one, whole; no stale part stays.",
        at=_at("engine", "file", "s3"),
    ),
    "replay-killed": Fault(
        title="SIGKILL at each step of a replay of dead letters",
        promise="Each letter is replayed once, or is still there.",
        at=_at("file", "s3", "elasticsearch", "postgres"),
    ),
    "refused": Fault(
        title="A server is away, and comes back",
        promise="Waited for and tried again; then the leg ends, and the next goes on after the last save.",
        at=_at("engine", "elasticsearch", "s3", "postgres", "airflow"),
    ),
    "cut": Fault(
        title="A connection is reset, or an answer cut off, in the middle",
        promise="What is not whole is not used; the same page, or the same object, comes again.",
        at=_at("engine", "elasticsearch", "s3", "postgres"),
    ),
    "answer-lost": Fault(
        title="A request was carried out, its answer is lost",
        promise="Sent again, it does not do it twice.",
        at=_at("engine", "elasticsearch", "s3", "file", "postgres"),
    ),
    "swapped": Fault(
        title="The answer to another request comes",
        promise="Noticed, and asked again; never taken for the one that was asked for.",
        at=_at("elasticsearch", "s3"),
    ),
    "pushback": Fault(
        title="429, SlowDown, too many connections: in bursts, for whole requests and for single records",
        promise="Waits as long as asked, asks for less at once; only what was refused is sent again.",
        at=_at("engine", "elasticsearch", "s3", "postgres", "airflow"),
    ),
    "server-error": Fault(
        title="500, 502, 503, 504, and an error in a body with status 200: in bursts",
        promise="Tried again with growing waits; the last real error comes through when it does not end.",
        at=_at("engine", "elasticsearch", "s3"),
    ),
    "slow": Fault(
        title="An answer trickles, stalls, or never comes",
        promise="Given up after Timeouts.read and Timeouts.request, with the place where it hung.",
        at=_at("elasticsearch", "s3", "postgres"),
    ),
    "hung": Fault(
        title="Nothing moves, under a live heartbeat",
        promise="Timeouts.no_progress ends the leg; the log shows where each thread stands.",
        at=_at("engine", "elasticsearch"),
    ),
    "partial-bulk": Fault(
        title="A part of a batch is refused",
        promise="Only that part is sent again, or given up, record by record.",
        at=_at("engine", "elasticsearch"),
    ),
    "too-large": Fault(
        title="413, a record or a batch that is too large",
        promise="Halved by bytes; a record too large by itself is a dead letter, or fails by its name.",
        at=_at("engine", "elasticsearch", "s3"),
    ),
    "poison": Fault(
        title="A record that cannot be read, transformed or written",
        promise="It becomes a dead letter with its exact bytes; the others pass; the error budget decides.",
        at=_at("engine", "sqlite", "file", "s3", "elasticsearch", "postgres", "airflow"),
    ),
    "letters-refused": Fault(
        title="The place for dead letters cannot be written",
        promise="The run fails with the cause, and its cursor does not pass the record.",
        at=_at("engine", "file", "s3", "elasticsearch", "postgres"),
    ),
    "snapshot-lost": Fault(
        title="A point in time expires, or its node dies",
        promise="The open window is read again; nothing is missing, what changed may come in two versions.",
        at=_at("elasticsearch"),
        elsewhere={"sqlite": "no snapshot is held between pages", "postgres": "likewise"},
    ),
    "partial-answer": Fault(
        title="Some shards fail, or the search times out on the server",
        promise="Never taken for an answer.",
        at=_at("elasticsearch"),
    ),
    "changing-source": Fault(
        title="Records change, come and go while they are read",
        promise="What was there from beginning to end comes, once or in its versions.",
        at=_at("elasticsearch", "sqlite", "postgres"),
    ),
    "source-gone": Fault(
        title="Index deleted, closed, made anew, read-only; table dropped, locked or altered: in the middle",
        promise="Never taken for the end of the data: it is waited for, or the run fails by its name.",
        at=_at("elasticsearch", "sqlite", "postgres"),
    ),
    "target-changed": Fault(
        title="Bucket, folder or staged object gone or changed in the middle",
        promise="Never published as if whole: the run fails, naming what is missing.",
        at=_at("s3", "file"),
    ),
    "disk-full": Fault(
        title="Disk full, quota exceeded",
        promise="No torn object, no torn checkpoint; after making room the run goes on.",
        at=_at("file", "s3", "elasticsearch"),
    ),
    "credentials": Fault(
        title="Credentials expire, or are taken back, in the middle",
        promise="What expires is fetched anew; what is taken back ends the run, and no secret is shown.",
        at=_at("elasticsearch", "s3", "postgres"),
    ),
    "orphans": Fault(
        title="Uploads that a killed leg left open",
        promise="The next leg that publishes aborts them; no other upload is touched.",
        at=_at("s3"),
    ),
    "zombie": Fault(
        title="A leg freezes, another goes on, the first wakes up",
        promise="It writes nothing that counts, and stops, saying which leg took over.",
        at=_at("engine", "file", "s3", "airflow"),
    ),
    "two-at-once": Fault(
        title="Two runs of one job, or two tries, at once",
        promise="One goes on; the other says who holds the target, and ends.",
        at=_at("engine", "file", "s3", "airflow"),
    ),
    "clock": Fault(
        title="The clock jumps, forwards or back",
        promise="No lease is taken too early, no key depends on it; another run may wait longer.",
        at=_at("engine", "file"),
    ),
    "store-away": Fault(
        title="The checkpoint store is away: API server, database, bucket",
        promise="Waited for within Timeouts.request, then the leg ends; never further than what was saved.",
        at=_at("engine", "s3", "airflow"),
    ),
    "checkpoint-damaged": Fault(
        title="A checkpoint is cut off, changed, of a newer version, removed, or not read back",
        promise="Refused by its name, with the way to begin anew; never guessed.",
        at=_at("engine", "file", "s3", "airflow"),
    ),
    "checkpoint-unfit": Fault(
        title="A checkpoint of another source, query, target, transform; too old",
        promise="Refused, naming what differs.",
        at=_at("engine", "sqlite", "postgres", "elasticsearch", "airflow"),
    ),
    "few-records": Fault(
        title="No record, one record, exactly one page, one batch, one window",
        promise="A whole output with these, and no empty object.",
        at=_at("engine", "elasticsearch", "sqlite", "postgres", "s3"),
    ),
    "alerts-away": Fault(
        title="Slack is down, slow, or pushes back",
        promise="No task fails or is delayed for it by more than a few seconds; the loss is logged.",
        at=_at("airflow"),
    ),
}


@dataclass(frozen=True)
class Mark:
    """One mark in the tests.

    :param fault: key in :data:`FAULTS`.
    :param at: where the test shows it.
    :param file: below the tests' folder.
    :param line: where the mark stands.
    """

    fault: str
    at: str
    file: str
    line: int


def marks() -> Iterator[Mark]:
    """Find every mark in the tests, without importing them."""
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text()
        if "mark.fault(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                (fault,) = map(ast.literal_eval, node.args)
                (at,) = (ast.literal_eval(keyword.value) for keyword in node.keywords)
                yield Mark(fault, at, str(path.relative_to(TESTS)), node.lineno)
