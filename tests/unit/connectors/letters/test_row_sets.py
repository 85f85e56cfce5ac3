"""Settled letters in rows: what readers find, how a set changes, and who may change it."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from airflow_batchkit.connectors.letters.place import LetterSet
from airflow_batchkit.connectors.letters.row_dead_letters import OpenRowDeadLetters
from airflow_batchkit.connectors.letters.row_sets import RowHold, RowLetters, read_head, switch, tidy
from airflow_batchkit.connectors.letters.row_staging import RowStaging, set_of
from airflow_batchkit.engine.exceptions import (
    CannotResumeError,
    PermanentError,
    SupersededError,
    TargetHeldError,
    TransientError,
)
from airflow_batchkit.engine.owner import OwnerRecord
from airflow_batchkit.engine.sink import BatchKey
from tests.support.letter_rows import MemoryRows, letters_of
from tests.support.object_storage import leg, publication

CHANGE = "0123abcd"


@pytest.fixture
def rows() -> MemoryRows:
    """Keep a set of three letters."""
    rows = MemoryRows()
    settle(rows)
    return rows


def settle(rows: MemoryRows, run: str = "run-1", mode: str = "real") -> None:
    """Settle three letters of a run."""
    one = leg("a", run=run, mode=mode)
    place = OpenRowDeadLetters(rows)
    place.start(one)
    place.put(BatchKey(partition=0, number=1), letters_of(one, 1, b"[1]", b"[2]", b"[3]"))
    place.settle(publication(0, dead_lettered=3))


def only(rows: MemoryRows) -> LetterSet:
    """Return the one set."""
    (found,) = RowLetters(rows).sets()
    return found


def records(rows: MemoryRows) -> list[bytes]:
    """Return the records that readers find."""
    return [bytes(line.letter.record) for line in RowLetters(rows).lines(only(rows))]


def lines(rows: MemoryRows) -> list[bytes]:
    """Return the letters that readers find."""
    return [line.raw for line in RowLetters(rows).lines(only(rows))]


def test_sets_are_found_by_job_and_run(rows: MemoryRows) -> None:
    """Every complete set is listed but those of runs over a part."""
    settle(rows, "run-2")
    settle(rows, "run-3", "partial")
    letters = RowLetters(rows)

    assert [found.run for found in letters.sets()] == ["run-1", "run-2"]
    assert [found.run for found in letters.sets(job="job", run="run-2")] == ["run-2"]
    assert list(letters.sets(job="jo")) == []
    assert letters.find(letters.name_of("job", "run-3")) is None


def test_reading_goes_on_after_a_position(rows: MemoryRows) -> None:
    """Strictly after the last letter that was read, and nothing twice."""
    letters, found = RowLetters(rows), only(rows)
    first, *others = letters.lines(found)

    assert [line.raw for line in letters.lines(found, first.position)] == [line.raw for line in others]


def test_a_set_that_changed_is_not_read_on(rows: MemoryRows) -> None:
    """What was looked at before a change is refused after it."""
    found = only(rows)
    change = RowLetters(rows).change(found, name=CHANGE)
    change.prepare(lines(rows)[:1])
    change.apply()

    with pytest.raises(CannotResumeError, match="have changed since"):
        list(RowLetters(rows).lines(found))


def test_a_set_that_lacks_letters_is_damaged(rows: MemoryRows) -> None:
    """Fewer rows than the head says fail the reading at its end."""
    rows.rows.popitem()

    with pytest.raises(PermanentError, match="should have 3 letters, 2 are there"):
        lines(rows)


def test_a_prepared_change_is_not_seen_until_it_is_applied(rows: MemoryRows) -> None:
    """Readers find the set as it was, then as it is to be; applied twice it is the same."""
    letters = RowLetters(rows)
    change = letters.change(only(rows), name=CHANGE)
    change.prepare(lines(rows)[1:])
    assert records(rows) == [b"[1]", b"[2]", b"[3]"]
    assert letters.prepared(only(rows)) == [CHANGE]

    change.apply()
    change.apply()

    assert records(rows) == [b"[2]", b"[3]"]
    assert (only(rows).revision, only(rows).replayed, letters.prepared(only(rows))) == (1, CHANGE, [])
    assert len(rows.rows) == 2


def test_a_discarded_change_leaves_nothing(rows: MemoryRows) -> None:
    """What was prepared goes, and the set stays as it was."""
    before = dict(rows.rows), dict(rows.kept)
    change = RowLetters(rows).change(only(rows), name=CHANGE)
    change.prepare([])
    change.discard()

    assert (rows.rows, rows.kept) == before


def test_a_change_of_an_older_revision_is_refused(rows: MemoryRows) -> None:
    """Two changes of the same set: the second one to be applied would undo the first."""
    letters, found = RowLetters(rows), only(rows)
    first, second = letters.change(found, name=CHANGE), letters.change(found, name="99999999")
    first.prepare(lines(rows)[:1])
    second.prepare(lines(rows)[:2])
    first.apply()

    with pytest.raises(SupersededError, match="have changed since"):
        second.apply()
    assert records(rows) == [b"[1]"]


def test_a_head_is_replaced_at_its_version_only(rows: MemoryRows) -> None:
    """Somebody else's switch is noticed."""
    name = only(rows).name
    head, _ = read_head(rows, name)
    assert head is not None

    with pytest.raises(TransientError, match="were changed meanwhile"):
        switch(rows, name, head, version="0", name="letters.switch")


def test_a_removed_set_leaves_what_a_run_has_staged(rows: MemoryRows) -> None:
    """Head, prepared changes and copies go; what belongs to a run that goes on stays."""
    staging = RowStaging(rows, leg("b"))
    staging.start()
    staging.put(BatchKey(partition=0, number=1), letters_of(leg("b"), 1, b"{}"))
    letters, found = RowLetters(rows), only(rows)
    letters.change(found, name=CHANGE).prepare(lines(rows))

    letters.remove(found)

    assert list(letters.sets()) == []
    assert letters.prepared(found) == []
    assert rows.parts(found.name) == [leg("b").token]


def test_tidying_keeps_what_is_named(rows: MemoryRows) -> None:
    """Copies that neither the head nor a prepared change names are left of a kill."""
    letters, found = RowLetters(rows), only(rows)
    letters.change(found, name=CHANGE).prepare(lines(rows))
    letters.change(found, name="99999999").prepare(lines(rows))
    rows.remove_note(f"change/{found.name}/99999999")
    assert len(rows.parts(found.name)) == 3

    tidy(rows, found.name)

    assert len(rows.parts(found.name)) == 2
    assert records(rows) == [b"[1]", b"[2]", b"[3]"]


def test_two_replays_do_not_hold_the_same_letters(rows: MemoryRows) -> None:
    """The second one is refused until the first lets go, or its lease is over."""
    first, second = (RowHold(rows, leg(token, run=f"replay-{token}")) for token in "de")
    first.claim()
    with pytest.raises(TargetHeldError, match="held by run replay-d"):
        second.claim()

    first.release()
    second.claim()
    second.confirm()
    expire(rows)
    first.claim()

    with pytest.raises(SupersededError, match="held by another leg now"):
        second.renew_if_due(for_seconds=60.0)
    with pytest.raises(SupersededError, match="is not held by this leg"):
        second.confirm()


def expire(rows: MemoryRows) -> None:
    """Let the lease be over."""
    note = rows.kept["owner/job"]
    record = msgspec.json.decode(note.content, type=OwnerRecord)
    over = msgspec.json.encode(msgspec.structs.replace(record, lease_until=0.0))
    rows.kept["owner/job"] = dataclasses.replace(note, content=over)


def test_a_set_is_named_by_its_run() -> None:
    """The name does not depend on whether there is one."""
    assert RowLetters(MemoryRows()).name_of("job", "run-1") == set_of("job", "run-1")
