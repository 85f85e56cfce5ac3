"""The envelope of a record that was given up."""

from __future__ import annotations

import msgspec
import pytest

from airflow_batchkit.engine.dead_letters import MAX_MESSAGE, MAX_STACK_TRACE, bounded, envelope
from airflow_batchkit.engine.sink import BatchKey, Leg
from airflow_batchkit.engine.types import Record, Rejection

LEG = Leg(job="job", run="run-1", token="t", generation="g", mode="real", partitions=("orders-0", "orders-1"))
KEY = BatchKey(partition=1, number=7)


def rejection(**changes: str) -> Rejection:
    """Give up a record whose body holds what JSON decoding would change."""
    record = Record("17", b'{"n":12345678901234567890,"f":1.0,"e":1e400}', routing="r", index="i")
    settings = {
        "stage": "sink",
        "error_class": "record",
        "error_type": "mapper_parsing_exception",
        "message": "m",
        **changes,
    }
    return Rejection(record=record, **settings)


def test_an_envelope_holds_everything_and_the_exact_bytes() -> None:
    """Who, where, why, when; the record as the source held it."""
    line = msgspec.json.encode(envelope(rejection(), leg=LEG, key=KEY, at=5.0))

    assert b'"record":{"n":12345678901234567890,"f":1.0,"e":1e400}' in line
    found = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    del found["record"]
    found = {name: msgspec.json.decode(value) for name, value in found.items()}
    assert found == {
        "job": "job",
        "run": "run-1",
        "token": "t",
        "partition": "orders-1",
        "batch": 7,
        "id": "17",
        "index": "i",
        "routing": "r",
        "stage": "sink",
        "error_class": "record",
        "error_type": "mapper_parsing_exception",
        "message": "m",
        "at": 5.0,
    }
    assert envelope(rejection(), leg=LEG, key=KEY).at > 1_700_000_000


def test_endless_messages_are_cut_in_the_middle() -> None:
    """The beginning and the end tell the most."""
    letter = envelope(rejection(message="b" * 10**6 + "e", stack_trace="b" * 10**6 + "e"), leg=LEG, key=KEY)

    assert len(letter.message) < MAX_MESSAGE + 50
    assert len(letter.stack_trace) < MAX_STACK_TRACE + 50
    assert letter.message[0] == "b"
    assert letter.message[-1] == "e"
    assert "998,001 characters left out" in letter.message


@pytest.mark.parametrize("length", [0, 9, 10])
def test_what_fits_stays_whole(length: int) -> None:
    """Up to the limit itself."""
    assert bounded("x" * length, 10) == "x" * length
