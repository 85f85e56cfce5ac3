"""What a run stages in rows, and which of it counts."""

from __future__ import annotations

import pytest
from typing_extensions import override

from airflow_batchkit.connectors.letters.row_staging import RowStaging, copied, overwrite, set_of
from airflow_batchkit.engine.exceptions import CannotResumeError, PermanentError, TransientError
from airflow_batchkit.engine.sink import BatchKey, Leg
from tests.support.letter_rows import MemoryRows, letters_of
from tests.support.object_storage import BEGUN, FINISHED, after_batch, inherited, leg

FIRST = leg("a")
SECOND = leg("b", inherited=inherited("a", after_batch(1)))


def staged(rows: MemoryRows, one: Leg, *numbers: int) -> RowStaging:
    """Start a leg that stages one letter in each of these batches."""
    staging = RowStaging(rows, one)
    staging.start()
    for number in numbers:
        staging.put(BatchKey(partition=0, number=number), letters_of(one, number, b"{}"))
    return staging


def ids(staging: RowStaging) -> list[str]:
    """Return the ids of the letters that count at the end of the run."""
    return [line.split(b'"id":"')[1].split(b'"')[0].decode() for line in staging.lines(FINISHED)]


def test_only_what_was_committed_counts() -> None:
    """Of an earlier leg counts what the checkpoint covered, of this one what its frontier covers."""
    rows = MemoryRows()
    staged(rows, FIRST, 1, 2)
    second = staged(rows, SECOND, 3)

    assert ids(second) == ["1.0", "3.0"]
    assert list(second.lines(BEGUN)) != list(second.lines(FINISHED))


def test_the_same_batch_twice_is_there_once() -> None:
    """A batch whose answer was lost is put again, and changes nothing."""
    rows = MemoryRows()
    staging = staged(rows, FIRST, 1)
    before = dict(rows.rows)

    at = next(iter(before.values())).line.split(b'"at":')[1].split(b",")[0]
    staging.put(BatchKey(partition=0, number=1), letters_of(FIRST, 1, b"{}", at=float(at)))

    assert rows.rows == before


def test_a_chain_with_a_missing_link_is_refused() -> None:
    """Where somebody removed what an earlier leg had kept, the run must not end as if it had kept nothing."""
    rows = MemoryRows()
    staged(rows, FIRST, 1)
    rows.kept.clear()

    with pytest.raises(CannotResumeError, match="somebody removed it"):
        list(staged(rows, SECOND).whole(FINISHED))


def test_what_a_newer_leg_has_staged_stays() -> None:
    """A leg that slept removes its own and what was there before it, never what began after it."""
    rows = MemoryRows()
    staged(rows, FIRST, 1)
    second = staged(rows, SECOND, 2)
    newer = leg("c", inherited=inherited("b", after_batch(2)))
    staged(rows, newer, 3)

    second.remove_all(keep=())

    assert rows.parts(second.set_name) == [newer.token]
    assert [name.rpartition("/")[2] for name in rows.kept] == [newer.token]


def test_a_part_that_is_shown_stays() -> None:
    """What readers see is kept when the staging goes."""
    rows = MemoryRows()
    first = staged(rows, FIRST, 1)
    copied(rows, first.set_name, first.lines(FINISHED), part="x.settled", where=str)

    first.remove_all(keep=("x.settled",))

    assert rows.parts(first.set_name) == ["x.settled"]


def test_a_partial_run_has_a_set_of_its_own() -> None:
    """A run over a part may have the name of a whole one, whose letters are not its to replace."""
    assert set_of("j", "r") != set_of("j", "r", partial=True)
    assert set_of("a/b", "c") != set_of("a", "b/c")


def test_a_copy_that_lacks_rows_is_not_taken_for_whole() -> None:
    """What was written and is not there is asked for again; what is no letter is named by its place."""

    class Losing(MemoryRows):
        @override
        def count(self, set_name: str, part: str) -> int:
            return super().count(set_name, part) - 1

    rows = Losing()
    lines = list(staged(rows, FIRST, 1).lines(FINISHED))
    with pytest.raises(TransientError, match="1 letters were written for s, 0 are there"):
        copied(rows, "s", iter(lines), part="p.settled", where=str)
    with pytest.raises(PermanentError, match="letter 1 is no dead letter"):
        copied(rows, "s", iter([b"secret\n"]), part="q.settled", where=lambda number: f"letter {number}")


def test_a_note_that_somebody_else_writes_is_not_overwritten() -> None:
    """A write between our look and ours is noticed."""

    class Racing(MemoryRows):
        @override
        def write_note(self, name: str, content: bytes, *, version: str | None) -> str | None:
            super().write_note(name, b"theirs", version=version)
            return super().write_note(name, content, version=version)

    rows = Racing()
    with pytest.raises(TransientError, match="was changed meanwhile"):
        overwrite(rows, "note", b"ours")
    assert rows.kept["note"].content == b"theirs"
