"""A batch that is refused as a whole: who is at fault is found by few calls, and nobody else is given up."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import pytest
from hypothesis import given, strategies as st

from airflow_batchkit.engine.exceptions import (
    BatchTooLargeError,
    PermanentError,
    PushbackError,
    RecordError,
    TransientError,
)
from airflow_batchkit.engine.isolating import Isolating
from airflow_batchkit.engine.types import Record, WriteResult, record_size


def records(sizes: Sequence[int]) -> list[Record]:
    """Make records with bodies of these sizes."""
    return [Record(id=str(number), body=b"x" * size) for number, size in enumerate(sizes)]


class Receiver:
    """Takes all of a call or nothing.

    :param poison: ids that it refuses a call for.
    :param max_bytes: the most that it takes in one call.
    :param fails: raised instead, by number of the call, from 1.
    """

    def __init__(
        self,
        *,
        poison: Collection[str] = (),
        max_bytes: int | None = None,
        fails: dict[int, Exception] | None = None,
    ) -> None:
        self.taken: list[str] = []
        self.calls = 0
        self._poison = set(poison)
        self._max_bytes = max_bytes
        self._fails = fails or {}

    def __call__(self, given: Sequence[Record]) -> WriteResult:
        self.calls += 1
        if self.calls in self._fails:
            raise self._fails[self.calls]
        if self._max_bytes is not None and sum(map(record_size, given)) > self._max_bytes:
            raise BatchTooLargeError("413")
        if self._poison.intersection(record.id for record in given):
            raise RecordError("no such field")
        self.taken += [record.id for record in given]
        return WriteResult(written=len(given))


@given(
    count=st.integers(min_value=1, max_value=600),
    bad=st.sets(st.integers(min_value=0, max_value=599), max_size=8),
)
def test_each_bad_record_is_found_by_few_calls(count: int, bad: set[int]) -> None:
    """K bad records of n cost at most 2·k·log2 n calls more; all others are written once, in order."""
    poison = {str(number) for number in bad if number < count}
    receiver = Receiver(poison=poison)
    writer = Isolating(receiver)
    writer.add(records([1] * count))
    result = writer.write()
    assert {rejection.record.id for rejection in result.rejected} == poison
    assert receiver.taken == [str(number) for number in range(count) if str(number) not in poison]
    assert result.written == len(receiver.taken)
    assert receiver.calls <= 1 + 2 * len(poison) * math.ceil(math.log2(count))


@given(
    sizes=st.lists(st.integers(min_value=0, max_value=1_000), min_size=1, max_size=200),
    limit=st.integers(min_value=100, max_value=5_000),
)
def test_what_is_too_large_is_cut_by_bytes(sizes: list[int], limit: int) -> None:
    """Only a record that is too large by itself is given up, as too large; the others go in order."""
    receiver = Receiver(max_bytes=limit)
    writer = Isolating(receiver)
    given_records = records(sizes)
    writer.add(given_records)
    result = writer.write()
    too_large = [record.id for record in given_records if record_size(record) > limit]
    assert sorted(rejection.record.id for rejection in result.rejected) == sorted(too_large)
    assert all(rejection.error_class == "size" for rejection in result.rejected)
    assert receiver.taken == [record.id for record in given_records if record.id not in too_large]


def test_a_large_record_among_small_ones_costs_few_calls() -> None:
    """The cut goes by bytes, so that one large record stands alone after the first cuts."""
    receiver = Receiver(max_bytes=2_000)
    writer = Isolating(receiver)
    writer.add(records([1] * 30 + [1_500] + [1] * 30))
    assert writer.write().written == 61
    assert receiver.calls <= 5


def test_pushback_never_halves() -> None:
    """Who asks us to slow down gets the same call again, later; nothing is given up for it."""
    receiver = Receiver(fails={1: PushbackError("busy", 1.0), 2: TransientError("reset")})
    writer = Isolating(receiver)
    writer.add(records([1] * 10))
    for error in (PushbackError, TransientError):
        with pytest.raises(error):
            writer.write()
    result = writer.write()
    assert (result.written, result.rejected, receiver.calls) == (10, [], 3)


def test_a_try_that_failed_half_way_goes_on_there() -> None:
    """What was taken before the failure is not handed over again, and counted once."""
    receiver = Receiver(poison={"0"}, fails={4: TransientError("reset")})
    writer = Isolating(receiver)
    writer.add(records([1] * 8))
    with pytest.raises(TransientError):
        writer.write()
    result = writer.write()
    assert sorted(receiver.taken) == [str(number) for number in range(1, 8)]
    assert (result.written, len(result.rejected)) == (7, 1)


def test_other_errors_come_through() -> None:
    """What fails for good is not taken for a bad record."""
    writer = Isolating(Receiver(fails={1: PermanentError("gone")}))
    writer.add(records([1, 1]))
    with pytest.raises(PermanentError, match="gone"):
        writer.write()


def test_calls_of_a_few_records() -> None:
    """A sink that takes few records at once gets them in order."""
    receiver = Receiver()
    writer = Isolating(receiver, at_once=3)
    writer.add(records([1] * 7))
    assert writer.write().written == 7
    assert receiver.calls == 3
    assert receiver.taken == [str(number) for number in range(7)]
