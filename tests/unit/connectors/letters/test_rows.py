"""Letters cut in two for a row, and whole again."""

from __future__ import annotations

import msgspec
import pytest

from airflow_batchkit.connectors.letters.place import decoded
from airflow_batchkit.connectors.letters.rows import PAGE_BYTES, LetterRow, by_bytes, by_pages
from airflow_batchkit.engine.dead_letters import DeadLetter
from airflow_batchkit.engine.exceptions import PermanentError

RECORDS = (
    b"{}",
    b'{"n":1e400,"n":12345678901234567890}',
    rb'{"half":"\ud800","record":[]}',
    '{ "ü" : "🙂" }'.encode(),
)


def letter(record: bytes, **changes: object) -> DeadLetter:
    """Make a letter."""
    fields = {"job": "j", "run": "r", "token": "t", "partition": "p", "batch": 1, "id": "1", "stage": "sink"}
    errors = {"error_class": "record", "error_type": "E", "message": 'says ,"record":', "at": 1.5}
    return msgspec.convert({**fields, **errors, **changes, "record": msgspec.Raw(record)}, DeadLetter)


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("cursor", [None, {"a": 1, "record": 2}, {"record": {"x": None}}])
def test_a_letter_is_whole_again(record: bytes, cursor: dict[str, object] | None) -> None:
    """Its line is the one that an object would hold, and every byte of the record is in it."""
    given = letter(record, cursor=cursor)

    row = LetterRow.of(given, part="t", number="1")

    assert row.record == record
    assert row.line == msgspec.json.encode(given) + b"\n"
    found = decoded(row.line, where="it")
    assert (bytes(found.record), found.cursor, found.message) == (record, cursor, given.message)


def test_what_is_no_letter_is_not_quoted() -> None:
    """A damaged line is named by its place alone."""
    damaged = msgspec.json.encode(letter(b'{"half":"x"}')).replace(b'"record":{', b'"record":secret{')

    with pytest.raises(PermanentError, match="line 1 is no dead letter") as caught:
        decoded(damaged, where="line 1")
    assert "secret" not in str(caught.value)


def test_pages_follow_bytes() -> None:
    """Pages begin small, grow with small rows, shrink with large ones, and give every row once, in order."""
    small = [LetterRow(part="t", number=f"{n:05d}", letter=b"{}", record=b"{}") for n in range(1_500)]
    large = LetterRow(part="t", number="99999", letter=b"{}", record=b" " * PAGE_BYTES)
    rows, sizes = [*small, large], list[int]()

    def page(after: str, size: int) -> list[LetterRow]:
        sizes.append(size)
        return [row for row in rows if row.number > after][:size]

    assert list(by_pages(page, "")) == rows
    assert sizes == [10, 1_000, 1_000, sizes[-1]]
    assert sizes[-1] < 1_000
    assert [len(some) for some in by_bytes([large, large, small[0]])] == [1, 1, 1]
