"""The source contract notices sources that lose, double or disorder records."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.testing.contract import SourceContract
from airflow_batchkit.testing.contract.source import SMALL_STEPS
from airflow_batchkit.testing.doubles import MemorySource, NoConnections, made_up_records

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_batchkit.engine.types import Record

RECORDS = made_up_records(9)
EXPECTED = [(record.id, bytes(record.body)) for record in RECORDS]
CONTEXT = OpenContext(connections=NoConnections(), timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC))
BROKEN: dict[str, Callable[[list[Record]], list[Record]]] = {
    "loses one": lambda records: records[:-1],
    "doubles one": lambda records: [*records, records[-1]],
    "changes one": lambda records: [*records[:-1], *made_up_records(1, first=99)],
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN.keys())
def test_wrong_records_are_noticed(change: Callable[[list[Record]], list[Record]]) -> None:
    """A source whose second page is not what it holds fails the suite."""
    source = MemorySource(partitions={"a": RECORDS})
    source.log.change_page("a", 2, change)
    with pytest.raises(AssertionError):
        SourceContract().test_every_record_comes_exactly_once(source.open(CONTEXT), EXPECTED, SMALL_STEPS)


def test_wrong_order_is_noticed() -> None:
    """A source that gives another order the second time fails the suite."""
    source = MemorySource(partitions={"a": RECORDS})
    source.log.change_page("a", 2, lambda records: records[::-1])
    with pytest.raises(AssertionError):
        SourceContract().test_order_is_the_same_each_time(source, CONTEXT)


def test_lost_record_after_resuming_is_noticed() -> None:
    """A source that loses a record only when it is resumed fails the suite."""
    source = MemorySource(partitions={"a": RECORDS})
    source.log.change_page("a", 4, lambda records: records[1:])
    with pytest.raises(AssertionError, match="resumed after"):
        SourceContract().test_resuming_gives_exactly_the_rest(source, CONTEXT)


def test_wrong_total_is_noticed() -> None:
    """A source that claims an exact total and is wrong fails the suite."""
    with pytest.raises(AssertionError):
        SourceContract().test_exact_total_is_exact(
            MemorySource(partitions={"a": RECORDS}).open(CONTEXT), EXPECTED[1:]
        )
