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
from airflow_batchkit.engine.shrinking import Share
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
        self.sizes: list[int] = []
        self._poison = set(poison)
        self._max_bytes = max_bytes
        self._fails = fails or {}

    def __call__(self, given: Sequence[Record]) -> WriteResult:
        self.calls += 1
        self.sizes.append(len(given))
        if self.calls in self._fails:
            raise self._fails[self.calls]
        if self._max_bytes is not None and sum(map(record_size, given)) > self._max_bytes:
            raise BatchTooLargeError("413")
        if self._poison.intersection(record.id for record in given):
            raise RecordError("no such field")
        self.taken += [record.id for record in given]
        return WriteResult(written=len(given))


@pytest.mark.fault("poison", at="engine")
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


@pytest.mark.fault("too-large", at="engine")
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


@pytest.mark.fault("too-large", at="engine")
def test_a_large_record_among_small_ones_costs_few_calls() -> None:
    """The cut goes by bytes, so that one large record stands alone after the first cuts."""
    receiver = Receiver(max_bytes=2_000)
    writer = Isolating(receiver)
    writer.add(records([1] * 30 + [1_500] + [1] * 30))
    assert writer.write().written == 61
    assert receiver.calls <= 5


def pushed_through(writer: Isolating, *, pushbacks: int) -> WriteResult:
    """Write again after each of so many pushbacks."""
    for _ in range(pushbacks):
        with pytest.raises(PushbackError):
            writer.write()
    return writer.write()


@pytest.mark.fault("pushback", at="engine")
def test_pushback_never_isolates_but_sends_less_at_once() -> None:
    """Nobody is given up for it; the calls after it are half as large, and all is taken once, in order."""
    busy = PushbackError("busy", 1.0)
    receiver = Receiver(fails={1: busy, 2: busy})
    writer = Isolating(receiver)
    writer.add(records([1] * 64))
    result = pushed_through(writer, pushbacks=2)
    assert (result.written, result.rejected) == (64, [])
    assert receiver.taken == [str(number) for number in range(64)]
    assert receiver.sizes[:2] == [64, 32]
    assert receiver.sizes[2:] == [16, 16, 24, 8], "what succeeds lets the calls grow again"


def test_pushback_in_the_middle_keeps_what_was_taken() -> None:
    """The call that was refused goes again in halves; what was taken before it is counted once."""
    receiver = Receiver(fails={2: PushbackError("busy")})
    writer = Isolating(receiver, at_once=8)
    writer.add(records([1] * 16))
    with pytest.raises(PushbackError):
        writer.write()
    assert writer.done == 8
    assert writer.write().written == writer.done == 16
    assert receiver.sizes == [8, 8, 4, 4]
    assert receiver.taken == [str(number) for number in range(16)]


def test_pushback_goes_down_to_one_record() -> None:
    """A call of one record is not made smaller; it only waits."""
    receiver = Receiver(fails={number: PushbackError("busy") for number in range(1, 8)})
    writer = Isolating(receiver)
    writer.add(records([1] * 5))
    assert pushed_through(writer, pushbacks=7).written == 5
    assert receiver.sizes[:8] == [5, 2, 1, 1, 1, 1, 1, 1]


def test_batches_of_a_leg_share_what_was_learned() -> None:
    """The next batch begins with the size at which the one before it got through."""
    share = Share()
    receiver = Receiver(fails={1: PushbackError("busy"), 2: PushbackError("busy"), 3: PushbackError("busy")})
    first, second = (Isolating(receiver, share=share) for _ in range(2))
    for writer in (first, second):
        writer.add(records([1] * 64))
    pushed_through(first, pushbacks=3)
    receiver.sizes.clear()
    second.write()
    assert receiver.sizes[0] < 64
    for _ in range(16):
        share.succeeded()
    third = Isolating(receiver, share=share)
    third.add(records([1] * 64))
    receiver.sizes.clear()
    third.write()
    assert receiver.sizes == [64]


@given(
    count=st.integers(min_value=1, max_value=100),
    bad=st.sets(st.integers(min_value=0, max_value=99), max_size=4),
    busy=st.sets(st.integers(min_value=1, max_value=60), max_size=30),
)
def test_pushback_among_poison_loses_and_doubles_nothing(count: int, bad: set[int], busy: set[int]) -> None:
    """Whenever it comes: each good record is taken once, in order, and only the bad ones are given up."""
    poison = {str(number) for number in bad if number < count}
    receiver = Receiver(poison=poison, fails={number: PushbackError("busy") for number in busy})
    writer = Isolating(receiver)
    writer.add(records([1] * count))
    result = None
    while result is None:
        before = writer.done
        try:
            result = writer.write()
        except PushbackError:
            assert writer.done >= before
    assert receiver.taken == [str(number) for number in range(count) if str(number) not in poison]
    assert {rejection.record.id for rejection in result.rejected} == poison
    assert writer.done == count


def test_a_transient_error_sends_the_same_again() -> None:
    """A reset says nothing of the size."""
    receiver = Receiver(fails={1: TransientError("reset")})
    writer = Isolating(receiver)
    writer.add(records([1] * 10))
    with pytest.raises(TransientError):
        writer.write()
    assert writer.write().written == 10
    assert receiver.sizes == [10, 10]


@pytest.mark.fault("partial-bulk", at="engine")
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
