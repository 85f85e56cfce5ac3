"""The checkpoint's text: whole or refused, small for ever; and the frontier's arithmetic."""

from __future__ import annotations

import re
import zlib
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from airflow_batchkit.engine.checkpoint import (
    MAX_BYTES,
    Budget,
    Checkpoint,
    Counts,
    Frontier,
    PartitionProgress,
    cursor_dict,
    decode,
    encode,
)
from airflow_batchkit.engine.exceptions import CannotResumeError, PermanentError
from airflow_batchkit.engine.policies.budget import ERROR_CLASSES, Spent
from airflow_batchkit.engine.tally import Tally
from tests.support.legs import dead_letter


def checkpoint(**changes: Any) -> Checkpoint:
    """Make a checkpoint in the middle of a run."""
    settings_: dict[str, Any] = {
        "job": "orders.export",
        "run": "scheduled__2026-01-01",
        "token": "0123456789abcdef",
        "generation": "89abcdef",
        "started_at": 1_767_225_600.25,
        "saved_at": 1_767_225_700.5,
        "fingerprints": {"source": "s", "query": "q"},
        "frontier": Frontier(2, (PartitionProgress(0, {"seq_no": 5}, 7), PartitionProgress(1, None, 0))),
        "counts": Counts(read=100, transformed=100, produced=100, written=99, dead_lettered_by_sink=1),
        "budget": Budget(read=10),
        "source": {"snapshots": 1},
        "errors": {"mapper_parsing_exception": 1},
        **changes,
    }
    return Checkpoint(**settings_)


def tally(error_type: str, count: int, *, sample: str = "1") -> Tally:
    """Make what is counted of a batch's dead letters, all of one kind."""
    noted = Tally()
    noted.note(dead_letter(error_type, id=sample) for _ in range(count))
    return noted


def test_what_is_stored_comes_back() -> None:
    """Every field, to the digit."""
    assert decode(encode(checkpoint())) == checkpoint()


STORED = encode(checkpoint()).encode()


@pytest.mark.fault("checkpoint-damaged", at="engine")
@settings(max_examples=400, deadline=None, database=None)
@given(position=st.integers(0, len(STORED) - 1), flip=st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_harmless(position: int, flip: int) -> None:
    """Whatever happens to one byte: the same checkpoint or a refusal, never another checkpoint."""
    damaged = bytearray(STORED)
    damaged[position] ^= flip
    _same_or_refused(bytes(damaged))


@pytest.mark.fault("checkpoint-damaged", at="engine")
@pytest.mark.parametrize("cut", range(0, len(STORED), 7))
def test_a_cut_checkpoint_is_refused(cut: int) -> None:
    """Cut off after any byte, from the beginning, or with any byte missing."""
    with pytest.raises(CannotResumeError, match="damaged"):
        decode(STORED[:cut].decode())
    with pytest.raises(CannotResumeError, match="damaged"):
        decode(STORED[cut + 1 :].decode())
    _same_or_refused(STORED[:cut] + STORED[cut + 1 :])


@given(text=st.text(max_size=60))
@settings(max_examples=200, deadline=None, database=None)
def test_any_other_text_is_refused(text: str) -> None:
    """Text, JSON or not, that no version of us wrote (lone surrogates too)."""
    with pytest.raises(CannotResumeError):
        decode(text)


@pytest.mark.fault("checkpoint-damaged", at="engine")
@pytest.mark.parametrize("text", ["null", "[]", "{}", '"x"', '{"crc32":0,"checkpoint":{}}', "\ud800"])
def test_json_that_is_no_checkpoint_is_refused(text: str) -> None:
    """Well-formed, but not ours."""
    with pytest.raises(CannotResumeError, match="damaged"):
        decode(text)


def _same_or_refused(damaged: bytes) -> None:
    try:
        found = decode(damaged.decode(errors="surrogateescape"))
    except CannotResumeError as error:
        said = str(error)
    else:
        said = "restart" if found == checkpoint() else f"another checkpoint: {found}"
    assert "restart" in said
    assert "\n" not in said


def test_a_newer_format_is_refused_by_number() -> None:
    """A checkpoint of a newer version of the package says: upgrade, or restart."""
    newer = msgspec.structs.replace(checkpoint(), schema=2)
    with pytest.raises(CannotResumeError, match=r"has format 2, this version .* reads up to 1: upgrade"):
        decode(encode(newer))


def test_a_long_run_stays_under_4_kb() -> None:
    """200 legs, eight open partitions, counts of 10^12, full error table: still one small value."""
    counts = Counts(**dict.fromkeys(Counts.__struct_fields__, 10**12))
    cursor = {"key": ["2026-01-01T00:00:00.000000Z", 10**18, "a-key-of-forty-characters-a-key-of-forty-c"]}
    long = checkpoint(
        job="a_dag_with_quite_a_long_name.a_task_with_quite_a_long_name",
        run="scheduled__2026-01-01T00_00_00.000000+00_00__3",
        clear_marker="17",
        legs=200,
        stuck_legs=2,
        active_seconds=10.0**6,
        fingerprints=dict.fromkeys(
            ["source", "query", "sort", "target", "format", "transform", "schema", "start_at"], "f" * 16
        ),
        frontier=Frontier(100_000, tuple(PartitionProgress(10**5 + n, cursor, 10**9) for n in range(8))),
        counts=counts,
        budget=Budget(
            read=10**12,
            dead_lettered=10**12,
            classes=dict.fromkeys(ERROR_CLASSES, 10**12),
            warned=0.8,
            exceeded=f"{10**12:,} dead letters of class permanent, {10**12:,} allowed (max_per_class)",
        ),
        errors={f"an_error_type_of_sixty_characters_an_error_type_of_six_{n:05}": 10**12 for n in range(8)},
        samples=[f"an_id_of_forty_characters_an_id_of_{n:05}" for n in range(8)],
        classes=dict.fromkeys(ERROR_CLASSES, 10**12),
    )
    assert len(encode(long)) < MAX_BYTES


def test_error_types_are_bounded_in_number_and_length() -> None:
    """The eight most frequent are kept; a server's endless name for an error is cut."""
    kept = checkpoint(errors={})
    for number in range(1, 21):
        kept.note_errors(tally(f"type-{number}-{'x' * 500}", number, sample=f"{number}-{'y' * 500}"))
    kept.note_errors(tally("type-1", 1))

    assert len(kept.errors) == len(kept.samples) == 8
    assert next(iter(kept.errors)).startswith("type-20-")
    assert kept.samples[0].startswith("20-")
    assert kept.samples[0].endswith("…")
    assert kept.classes == {"record": sum(range(1, 21)) + 1}
    assert len(encode(kept)) < MAX_BYTES


def test_a_sample_stays_the_first() -> None:
    """It does not change under the eyes of who looks for it."""
    kept = checkpoint(errors={})
    kept.note_errors(tally("KeyError", 1, sample="first"))
    kept.note_errors(tally("KeyError", 5, sample="later"))

    assert kept.samples == ["first"]


def test_samples_stay_with_their_errors() -> None:
    """However the order of the most frequent changes from batch to batch, and when one is dropped."""
    kept = checkpoint(errors={})
    for number in range(9):
        kept.note_errors(tally(f"E{number}", 10 + number, sample=f"s{number}"))
    kept.note_errors(tally("E3", 50, sample="other"))

    assert dict(zip(kept.errors, kept.samples, strict=True)) == {
        f"E{number}": f"s{number}" for number in range(1, 9)
    }
    assert next(iter(kept.errors)) == "E3"


def test_an_older_checkpoint_without_classes_and_samples_goes_on() -> None:
    """What it does not know is not known; what comes now is."""
    text = encode(checkpoint(errors={"KeyError": 3}))
    payload = msgspec.json.decode(text)["checkpoint"]
    for field in ("samples", "classes"):
        del payload[field]
    del payload["budget"]["classes"], payload["budget"]["warned"]
    content = msgspec.json.encode(payload)
    old = decode((b'{"crc32":%d,"checkpoint":%b}' % (zlib.crc32(content), content)).decode())
    old.note_errors(tally("ValueError", 1, sample="7"))

    assert old.errors == {"KeyError": 3, "ValueError": 1}
    assert old.samples == ["", "7"]
    assert old.classes == {"record": 1}


def test_a_budget_period_is_what_came_since_it_began() -> None:
    """Records, dead letters, and these by class."""
    kept = checkpoint(errors={}, budget=Budget(read=60, exceeded="over", warned=0.8))
    kept.note_errors(tally("KeyError", 2))
    assert kept.spent == Spent(read=40, dead_lettered=1, classes={"record": 2})

    kept.begin_budget_period()
    kept.note_errors(tally("KeyError", 3))

    assert kept.spent == Spent(read=0, dead_lettered=0, classes={"record": 3})
    assert kept.budget == Budget(read=100, dead_lettered=1, classes={"record": 2})


def test_a_value_that_is_too_large_is_refused_when_it_is_made() -> None:
    """A connector that puts too much into its state hears of it at once, in one line."""
    with pytest.raises(PermanentError, match=r"checkpoint is 5,\d+ bytes, at most 4,096 are allowed"):
        encode(checkpoint(source={"x": "y" * 4500}))


@pytest.mark.parametrize(
    ("partition", "batch", "counts"),
    [
        (0, 7, True),
        (0, 8, False),
        (1, 1, False),
        (2, 999, True),
        (3, 4, True),
        (3, 5, False),
        (4, 1, False),
    ],
)
def test_what_a_frontier_covers(partition: int, batch: int, *, counts: bool) -> None:
    """Finished partitions whole, open ones up to their number, those never opened not at all."""
    frontier = Frontier(
        4, (PartitionProgress(0, {"p": 1}, 7), PartitionProgress(1, None, 0), PartitionProgress(3, None, 4))
    )
    assert frontier.covers(partition, batch) is counts
    assert frontier.finished(partition) is (partition == 2)


def test_a_new_leg_keeps_the_cursors_and_none_of_the_batches() -> None:
    """Numbers are per leg; the cursor is the run's."""
    old = Frontier(3, (PartitionProgress(1, {"p": 9}, 12),))

    assert old.for_new_leg() == Frontier(3, (PartitionProgress(1, {"p": 9}, 0),))


def test_a_cursor_becomes_a_plain_dict() -> None:
    """Whatever mapping a source uses; None stays None."""
    assert cursor_dict(None) is None
    assert type(cursor_dict(msgspec.json.decode(b'{"a":1}'))) is dict


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        (Counts(), None),
        (Counts(read=5, transformed=3, filtered=1, dead_lettered_by_transform=1), "produced"),
        (Counts(read=5, transformed=4, filtered=1, produced=9, written=5, unchanged=3, skipped=1), None),
        (Counts(read=5, transformed=3, dead_lettered_by_source=2, produced=3, written=3), None),
        (Counts(read=5, transformed=3), r"read 5 records, .* = 3 \(difference \+2\)"),
        (
            Counts(read=1, transformed=1, produced=1, written=2),
            r"produced 1 records, .* = 2 \(difference -1\)",
        ),
    ],
)
def test_both_ends_of_the_counts(counts: Counts, says: str | None) -> None:
    """Which end does not add up, and by how much."""
    if says == "produced":
        counts.produced = 3
        counts.written, counts.dead_lettered_by_sink = 2, 1
        says = None
    difference = counts.difference()
    if says is None:
        assert difference is None
    else:
        assert difference is not None
        assert re.match(says, difference)


def test_counts_of_an_older_version_stay_readable() -> None:
    """Manifests and checkpoints from before sources had dead letters of their own lack that number."""
    older = msgspec.json.decode(b'{"read":5,"transformed":4,"dead_lettered_by_transform":1}', type=Counts)
    assert (older.dead_lettered_by_source, older.dead_lettered) == (0, 1)


def test_counts_add_up_field_by_field() -> None:
    """Adding forgets no field."""
    ones = Counts(**dict.fromkeys(Counts.__struct_fields__, 1))
    total = Counts()
    total.add(ones)
    total.add(ones)

    assert msgspec.structs.astuple(total) == (2,) * len(Counts.__struct_fields__)
    assert total.dead_lettered == 6
