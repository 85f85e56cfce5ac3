"""The run's story in the log: what is in it, and that nothing in a record can forge a line of it."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from airflow_batchkit.engine.checkpoint import Checkpoint, Counts
from airflow_batchkit.engine.dead_letters import DeadLetter
from airflow_batchkit.engine.exceptions import PermanentError, StoppedError, SupersededError, TransientError
from airflow_batchkit.engine.progress import Progress
from airflow_batchkit.engine.progress_log import LogListener, flatten, one_line, summary
from airflow_batchkit.engine.report import Report, make_report
from tests.support.legs import World

EVIL = "x\r\nINFO all is well\x1b[31m\u2028\x00\u202e"


def letter(**changes: Any) -> DeadLetter:
    """Make a dead letter."""
    settings: dict[str, Any] = {
        "job": "job",
        "run": "run-1",
        "token": "t",
        "partition": "orders-0",
        "batch": 3,
        "id": "17",
        "stage": "sink",
        "error_class": "record",
        "error_type": "mapper_parsing_exception",
        "message": "no such field",
        "stack_trace": "",
        "at": 0.0,
        "record": msgspec.Raw(b"{}"),
        **changes,
    }
    return DeadLetter(**settings)


def _refuse(_document: dict[str, Any]) -> None:
    raise PermanentError("403")


def report(**changes: Any) -> Report:
    """Make a report."""
    checkpoint = Checkpoint(
        run="run-1",
        token="t",
        generation="g",
        started_at=0.0,
        active_seconds=12.3456,
        legs=2,
        counts=Counts(
            read=1200, transformed=1100, filtered=100, produced=1100, written=1090, dead_lettered_by_sink=10
        ),
    )
    settings: dict[str, Any] = {
        "job": "job",
        "status": "completed",
        "published": {"location": "s3://lake/orders", "parts": 7},
        "dead_letters": {"place": "s3://lake/letters", "count": 10},
        "finished_at": 1_767_225_600.0,
        **changes,
    }
    return make_report(checkpoint, **settings)


@pytest.fixture
def listener(caplog: pytest.LogCaptureFixture) -> LogListener:
    """Write into the captured log."""
    caplog.set_level(logging.DEBUG)
    return LogListener(logging.getLogger("tests.progress_log"))


def test_a_whole_run_tells_its_story(listener: LogListener, caplog: pytest.LogCaptureFixture) -> None:
    """Settings, each batch, a retry with its stack trace, publishing, and the final table."""
    world = World()
    world.target.script.fail("write", TransientError("503 from the store"), at=2)
    world.run(listeners=[listener])
    text = caplog.text

    assert "job begins in REAL mode" in text
    assert "settings.batch.max_records = 10" in text
    assert "settings.timeouts.run = 86400.0" in text
    assert "batch 5/5 · 45/45 records (100%)" in text
    assert "write of batch" in text
    assert "failed (try 1): TransientError: 503 from the store; trying again in" in text
    assert "Traceback" in text
    assert "everything is written; publishing" in text
    assert text.index("publishing") < text.index("job, run run-1")


def test_a_window_without_records_is_no_line(listener: LogListener, caplog: pytest.LogCaptureFixture) -> None:
    """The log has a line for each window that brought something, and none that says the same again."""
    for read in (100, 100, 250, 250):
        listener.on_progress(
            Progress(
                batches=1,
                batches_total=None,
                read=read,
                total=None,
                records_per_second=1.0,
                dead_lettered=0,
                eta_seconds=None,
                active_seconds=1.0,
                throttled_seconds=0.0,
                bytes_read=1,
                cursor="",
            )
        )
    assert [message.partition("records")[0] for message in caplog.messages] == [
        "batch 1 · 100 ",
        "batch 1 · 250 ",
    ]


def test_the_summary_is_a_table() -> None:
    """Counts, times, what was published, where the dead letters are; names in one column."""
    lines = summary(report()).splitlines()

    assert lines[0] == "job, run run-1"
    values = {line[2:24].strip(): line[24:] for line in lines[1:]}
    assert values["status"] == "completed (real)"
    assert values["dead-lettered"] == "10"
    assert values["working time"] == "0:12 in 2 legs, 97 records/s"
    assert values["finished"] == "2026-01-01T00:00:00+00:00"
    assert values["published location"] == "s3://lake/orders"
    assert values["dead letters count"] == "10"


def test_waiting_is_said_with_its_reason(listener: LogListener, caplog: pytest.LogCaptureFixture) -> None:
    """Before the wait, not after it."""
    listener.on_waiting("rate limit", 75)

    assert caplog.messages == ["waiting 1:15: rate limit"]


def test_a_stop_is_a_warning_and_a_failure_an_error(
    listener: LogListener, caplog: pytest.LogCaptureFixture
) -> None:
    """A stop has no stack trace: nothing is wrong; a failure has one."""
    with pytest.raises(PermanentError) as caught:
        World().run(World().job(transform=_refuse))
    listener.on_failure(StoppedError("deploy"))
    listener.on_failure(caught.value)

    stop, failure = [record for record in caplog.records if record.name == "tests.progress_log"]
    assert (stop.levelno, stop.exc_info) == (logging.WARNING, None)
    assert stop.getMessage() == "stopped: deploy; the next leg goes on from the checkpoint"
    assert failure.levelno == logging.ERROR
    assert failure.exc_info is not None
    assert failure.getMessage() == "failed: PermanentError: 403"


def test_a_superseded_leg_is_no_failure(listener: LogListener, caplog: pytest.LogCaptureFixture) -> None:
    """A newer leg does the work: a warning, without a stack trace."""
    listener.on_failure(SupersededError("leg b took over"))

    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.messages == ["superseded: leg b took over; this leg ends and touches nothing more"]


def test_the_first_dead_letters_are_told_in_full_and_the_rest_counted(
    listener: LogListener, caplog: pytest.LogCaptureFixture
) -> None:
    """Three with their stack trace; then only how many, however many thousands there are."""
    many = [letter(id=str(number), stack_trace="  in convert") for number in range(10)]
    listener.on_dead_letters(many[:2])
    listener.on_dead_letters(many)
    listener.on_dead_letters(many)

    full = [message for message in caplog.messages if "in convert" in message]
    assert len(full) == 3
    assert caplog.messages[-1] == "10 records of orders-0, batch 3, dead-lettered"


@pytest.mark.parametrize("where", ["id", "message", "error_type", "stack_trace"])
def test_a_record_cannot_forge_a_line(
    where: str, listener: LogListener, caplog: pytest.LogCaptureFixture
) -> None:
    """Line breaks and terminal sequences in ids, messages, a server's error names and stack traces."""
    listener.on_dead_letters([letter(**{where: f"ValueError: {EVIL}"})])

    assert not any(line.startswith("INFO all is well") for line in caplog.messages[0].splitlines())
    assert "\x1b" not in caplog.text
    assert "\r" not in caplog.text
    assert "\u202e" not in caplog.text


def test_an_error_cannot_forge_a_line(listener: LogListener, caplog: pytest.LogCaptureFixture) -> None:
    """What a server answers, settings and reports stand in one line each."""
    listener.on_retry(f"write of {EVIL}", TransientError(EVIL), 1, 0.5)
    listener.on_failure(StoppedError(EVIL))
    listener.on_waiting(EVIL, 5)
    listener.on_start({"job": EVIL, "mode": "real", "settings": {"query": EVIL, "list": [EVIL]}})
    listener.on_finish(report(job=EVIL, published={"location": EVIL, "parts": [EVIL]}))

    for message in caplog.messages:
        assert "\x1b" not in message
        assert "\r" not in message
        assert not any(line.startswith("INFO") for line in message.splitlines())


def test_one_line() -> None:
    """What can be printed stays, also umlauts and emoji; the rest is escaped."""
    assert one_line("Größe · 30 € 🙂") == "Größe · 30 € 🙂"
    assert one_line("a\nb\x1b[0m") == "a\\nb\\x1b[0m"


def test_flatten() -> None:
    """Leaves by dotted name; an empty mapping is a leaf too."""
    facts = {"a": {"b": {"c": 1}}, "d": {}, "e": "x\ny", "f": None}

    assert dict(flatten(facts)) == {"a.b.c": 1, "d": {}, "e": "x\\ny", "f": None}


def test_a_report_survives_the_checkpoint() -> None:
    """As JSON and back, nothing changes."""
    made = report()

    assert Report.from_dict(msgspec.json.decode(msgspec.json.encode(made.to_dict()))) == made
    assert made.counts["dead_lettered"] == 10
    assert made.active_seconds == 12.346
