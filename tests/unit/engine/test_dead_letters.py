"""The envelope of a record that was given up."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from airflow_batchkit.engine.dead_letters import (
    MAX_MESSAGE,
    MAX_STACK_TRACE,
    DeadLetter,
    ReplayedRecord,
    bounded,
    envelope,
)
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


def test_a_letter_says_where_the_run_comes_from() -> None:
    """What Airflow calls the run is in the envelope, and so is the record's version."""
    origin: dict[str, str | int] = {"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": 2}
    given_up = rejection()
    given_up.record = Record("17", b"{}", version=3)

    letter = envelope(given_up, leg=dataclasses.replace(LEG, origin=origin), key=KEY)

    assert (letter.origin, letter.version) == (origin, 3)


def test_what_fails_again_keeps_its_first_envelope() -> None:
    """Run, batch and first time stay those of the first time; error, last time and count are new."""
    first = envelope(rejection(), leg=LEG, key=KEY, at=5.0)
    for replays, at in ((1, 6.0), (2, 7.0)):
        record = ReplayedRecord(id=first.id, body=bytes(first.record), letter=first)
        again = dataclasses.replace(LEG, job="replay", run="run-9", token="u")
        given_up = rejection(error_type="KeyError")
        given_up.record = record
        first = envelope(given_up, leg=again, key=BatchKey(partition=0, number=1), at=at)
        assert (first.job, first.run, first.token, first.partition, first.batch) == (
            "job",
            "run-1",
            "t",
            "orders-1",
            7,
        )
        assert (first.error_type, first.first_at, first.at, first.replays) == ("KeyError", 5.0, at, replays)


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b'{\r\n  "a": 1.0,\n  "b": "x\\n"\n}', b'{"a":1.0,"b":"x\\n"}'),
        (b'{\n"a":"\xed\xa0\x80"}', b'{"a":"\xed\xa0\x80"}'),
    ],
)
def test_a_letter_is_one_line_whatever_the_record_looks_like(body: bytes, kept: bytes) -> None:
    """A record that was stored pretty-printed loses its line breaks, and nothing else."""
    given_up = rejection()
    given_up.record = Record("17", body)

    line = msgspec.json.encode(envelope(given_up, leg=LEG, key=KEY))

    assert b"\n" not in line
    assert b'"record":' + kept in line


def test_letters_of_the_first_version_stay_readable() -> None:
    """A line without the fields that came later is read with their defaults."""
    line = (
        b'{"job":"j","run":"r","token":"t","partition":"p","batch":1,"id":"1","stage":"transform",'
        b'"error_class":"record","error_type":"E","message":"m","at":5.0,"record":{"n":1.0}}'
    )

    letter = msgspec.json.decode(line, type=DeadLetter)

    assert (letter.origin, letter.version, letter.first_at, letter.replays) == ({}, None, None, 0)
    assert bytes(letter.record) == b'{"n":1.0}'
