"""LOCAL mode's stand-in for a sink."""

from __future__ import annotations

import logging

import pytest

from airflow_batchkit.engine.local import LocalSink
from airflow_batchkit.engine.sink import BatchKey
from airflow_batchkit.testing.doubles import MemorySink, made_up_records

KEY = BatchKey(partition=0, number=1)


@pytest.fixture
def sink(caplog: pytest.LogCaptureFixture) -> LocalSink:
    """Stand in for a memory sink."""
    caplog.set_level(logging.INFO)
    return LocalSink(MemorySink(), logging.getLogger("tests.local"))


def test_the_first_records_are_named_and_the_rest_counted(
    sink: LocalSink, caplog: pytest.LogCaptureFixture
) -> None:
    """Three by id, then how many more; all of them are skipped, none is written."""
    writer = sink.begin(KEY)
    writer.add(made_up_records(2))
    writer.add(made_up_records(1200, first=3))
    result = writer.write()

    assert (result.written, result.skipped, result.rejected) == (0, 1202, [])
    assert caplog.messages == [
        "write of record '1' skipped because we are in LOCAL mode",
        "write of record '2' skipped because we are in LOCAL mode",
        "write of record '3' skipped because we are in LOCAL mode",
        "write of 1,199 more records of this batch skipped because we are in LOCAL mode",
    ]


def test_a_small_batch_has_no_rest(sink: LocalSink, caplog: pytest.LogCaptureFixture) -> None:
    """No line about zero more records; an id cannot forge a line."""
    writer = sink.begin(KEY)
    records = made_up_records(1)
    records[0].id = "a\nb"
    writer.add(records)
    writer.write()

    assert caplog.messages == ["write of record 'a\\nb' skipped because we are in LOCAL mode"]


def test_it_owns_publishes_and_holds_nothing(sink: LocalSink, caplog: pytest.LogCaptureFixture) -> None:
    """And says so."""
    assert sink.publish(None) == {}  # type: ignore[arg-type]  # not looked at
    sink.renew(for_seconds=5)
    sink.release()
    sink.close()

    assert sink.state == {}
    assert sink.environment == {"mode": "LOCAL: nothing is written"}
    assert "publish skipped because we are in LOCAL mode" in caplog.text


def test_its_fingerprint_is_that_of_the_settings(sink: LocalSink) -> None:
    """A LOCAL run is not resumed into another target's LOCAL run."""
    log = logging.getLogger("tests.local")

    assert sink.fingerprints == LocalSink(MemorySink(), log).fingerprints
    assert sink.fingerprints != LocalSink(MemorySink(default_batch_bytes=5), log).fingerprints
