"""What made the dead letters of a batch, counted."""

from __future__ import annotations

import msgspec
import pytest

from airflow_batchkit.engine.tally import Tally
from tests.support.legs import dead_letter


def test_types_and_classes_are_counted_and_the_first_id_of_each_type_is_kept() -> None:
    """Over all batches that are noted."""
    tally = Tally()
    tally.note([dead_letter("KeyError", id="1"), dead_letter("KeyError", id="2")])
    tally.note(dead_letter("TooLarge", error_class="size", id=number) for number in "34")

    assert tally.types == {"KeyError": 2, "TooLarge": 2}
    assert tally.classes == {"record": 2, "size": 2}
    assert tally.samples == {"KeyError": "1", "TooLarge": "3"}


def test_a_class_that_no_table_names_is_permanent() -> None:
    """A sink of somebody's own may call its classes what it likes: the checkpoint stays small."""
    tally = Tally()
    tally.note(dead_letter(error_class=error_class) for error_class in ("my own", "permanent"))

    assert tally.classes == {"permanent": 2}


@pytest.mark.parametrize("character", ["x", "é", "…", "😀", '"', "\\", "\n", "\x00", "\ud800"])
@pytest.mark.parametrize("length", [0, 1, 38, 39, 40, 41, 500])
def test_types_and_samples_are_bounded_in_bytes(character: str, length: int) -> None:
    """Whatever characters a server puts into a name or an id: what is stored stays as small."""
    tally = Tally()
    tally.note([dead_letter(f"T{character * length}", id=character * length)])
    ((name, sample),) = tally.samples.items()

    assert len(msgspec.json.encode(name)) <= 62
    assert len(msgspec.json.encode(sample)) <= 42
    assert list(tally.types) == [name]
    if character == "x":
        assert sample == ("x" * length if length <= 40 else f"{'x' * 37}…")
