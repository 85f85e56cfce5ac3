"""Every fault has its test, at every place where it can happen."""

from __future__ import annotations

import pytest

from tests.support.fault_table import FAULTS, PLACES, Mark, marks

SHOWN = sorted(marks(), key=lambda mark: (mark.fault, mark.at, mark.file, mark.line))


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_shown_wherever_it_can_happen(fault: str) -> None:
    """A place that a fault names has at least one test that is marked so."""
    shown = {mark.at for mark in SHOWN if mark.fault == fault}
    assert not FAULTS[fault].at - shown


@pytest.mark.parametrize("mark", SHOWN, ids=lambda mark: f"{mark.file}:{mark.line}")
def test_each_mark_means_a_fault_of_the_table(mark: Mark) -> None:
    """A mark with a misspelt name would show nothing: faults and places are those of the table."""
    assert mark.fault in FAULTS
    assert mark.at in PLACES
