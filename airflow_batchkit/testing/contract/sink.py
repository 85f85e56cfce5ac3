"""What every sink must do, and what those do besides that own their target or stage their output."""
# ruff: noqa: PLR2004, S101  # a test is made of numbers and asserts

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import pytest

from airflow_batchkit.engine.checkpoint import Frontier, PartitionProgress
from airflow_batchkit.engine.exceptions import SupersededError, TargetHeldError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.sink import BatchKey, Inherited, Leg, OpenSink, Publication, Sink
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.testing.doubles import NoConnections, made_up_records

if TYPE_CHECKING:
    from airflow_batchkit.engine.types import WriteResult

MakeSink: TypeAlias = Callable[[], Sink]
Visible: TypeAlias = Callable[[], list[str]]

MAX_STATE_BYTES = 500
FIRST_TOKEN, SECOND_TOKEN, THIRD_TOKEN = "1" * 16, "2" * 16, "3" * 16
FINISHED = Frontier(1)
AFTER_BATCH_ONE = Frontier(1, (PartitionProgress(0, {"position": 2}, 1),))


def leg(
    token: str, *, run: str = "run-1", generation: str = "0a0a0a0a", inherited: Inherited | None = None
) -> Leg:
    """Make a leg of a run with one partition."""
    return Leg(
        job="contract",
        run=run,
        token=token,
        generation=generation,
        mode="real",
        partitions=("only",),
        inherited=inherited,
    )


def publication(written: int, frontier: Frontier = FINISHED) -> Publication:
    """Make what a sink is given to publish after so many records were written."""
    return Publication(
        frontier=frontier,
        counts={"read": written, "written": written},
        fingerprints={"source": "contract"},
        notes={},
        stop_asked=lambda: None,
    )


def write(sink: OpenSink, number: int, ids: Sequence[int]) -> WriteResult:
    """Write one batch of records with these ids."""
    writer = sink.begin(BatchKey(partition=0, number=number))
    for identity in ids:
        writer.add(made_up_records(1, first=identity))
    return writer.write()


def as_text(ids: Iterable[int]) -> list[str]:
    """Return ids as the records have them."""
    return [str(identity) for identity in ids]


class SinkContract:
    """Inherit it, and override the fixtures :meth:`make_sink` and :meth:`visible`."""

    @pytest.fixture
    def make_sink(self) -> MakeSink:
        """Return a function that makes settings of a sink, each time on the same, at first empty target."""
        message = "override the fixture make_sink"
        raise NotImplementedError(message)

    @pytest.fixture
    def visible(self) -> Visible:
        """Return a function that gives the ids of the records that a reader sees, in any order."""
        message = "override the fixture visible"
        raise NotImplementedError(message)

    @pytest.fixture
    def context(self) -> OpenContext:
        """Return what the sink is opened with. Override it where the sink needs connections."""
        return OpenContext(
            connections=NoConnections(), timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC)
        )

    @pytest.fixture
    def open_sink(self, make_sink: MakeSink, context: OpenContext) -> Iterator[Callable[[], OpenSink]]:
        """Return a function that opens the sink, as each leg does; all are closed after the test."""
        opened: list[OpenSink] = []

        def open_another() -> OpenSink:
            opened.append(make_sink().open(context))
            return opened[-1]

        yield open_another
        for sink in opened:
            sink.close()

    def test_written_records_are_visible_once_published(
        self, open_sink: Callable[[], OpenSink], visible: Visible
    ) -> None:
        """A run of one leg makes each of its records visible once, and counts what it wrote."""
        sink = open_sink()
        sink.start(leg(FIRST_TOKEN))
        assert write(sink, 1, [1, 2, 3]).written == 3
        assert write(sink, 2, [4]).written == 1
        sink.renew()
        sink.publish(publication(4))
        sink.release()
        assert sorted(visible()) == as_text([1, 2, 3, 4])

    def test_order_of_writes_does_not_matter(
        self, open_sink: Callable[[], OpenSink], visible: Visible
    ) -> None:
        """Batches that are begun together and written the other way round are all there."""
        sink = open_sink()
        sink.start(leg(FIRST_TOKEN))
        writers = [sink.begin(BatchKey(partition=0, number=number)) for number in (1, 2, 3)]
        for number, writer in enumerate(writers, start=1):
            writer.add(made_up_records(2, first=number * 2))
        for writer in reversed(writers):
            writer.write()
        sink.publish(publication(6))
        assert sorted(visible()) == as_text(range(2, 8))

    def test_empty_batch_writes_nothing(self, open_sink: Callable[[], OpenSink], visible: Visible) -> None:
        """A batch whose records were all filtered leaves nothing behind; numbers may have gaps."""
        sink = open_sink()
        sink.start(leg(FIRST_TOKEN))
        empty = write(sink, 1, [])
        assert (empty.written, empty.unchanged, empty.rejected) == (0, 0, [])
        write(sink, 2, [1])
        sink.publish(publication(1))
        assert visible() == ["1"]

    def test_empty_run_is_published(self, open_sink: Callable[[], OpenSink], visible: Visible) -> None:
        """A run that found no record publishes an empty output rather than nothing."""
        sink = open_sink()
        sink.start(leg(FIRST_TOKEN))
        sink.publish(publication(0))
        assert visible() == []

    def test_writing_a_batch_again_leaves_it_once(
        self, make_sink: MakeSink, open_sink: Callable[[], OpenSink], visible: Visible
    ) -> None:
        """A write that is called again, because its answer was lost, is counted and visible once."""
        sink = open_sink()
        sink.start(leg(FIRST_TOKEN))
        writer = sink.begin(BatchKey(partition=0, number=1))
        writer.add(made_up_records(3))
        writer.write()
        again = writer.write()
        assert again.written + again.unchanged == 3
        sink.publish(publication(3))
        assert sorted(visible()) == as_text([1, 2, 3])
        assert isinstance(make_sink().idempotent, bool)

    def test_publishing_again_changes_nothing(
        self, open_sink: Callable[[], OpenSink], visible: Visible
    ) -> None:
        """A publish that is called again, in the same leg and in the next, leaves the same output."""
        sink = open_sink()
        sink.start(leg(FIRST_TOKEN))
        write(sink, 1, [1, 2])
        msgspec.json.encode(dict(sink.publish(publication(2))))
        sink.publish(publication(2))
        second = open_sink()
        second.start(leg(SECOND_TOKEN, inherited=Inherited(token=FIRST_TOKEN, frontier=FINISHED)))
        second.publish(publication(2))
        assert sorted(visible()) == as_text([1, 2])

    def test_defaults_are_sane(self, make_sink: MakeSink) -> None:
        """The engine can cut batches by what the sink says."""
        sink = make_sink()
        assert sink.default_batch_bytes > 0
        assert sink.default_batch_records is None or sink.default_batch_records > 0
        assert isinstance(sink.one_write_per_partition, bool)

    def test_facts_are_json(self, open_sink: Callable[[], OpenSink]) -> None:
        """Fingerprints, state and environment are JSON; the state rides in the checkpoint, so it is small."""
        sink = open_sink()
        sink.start(leg(FIRST_TOKEN))
        assert {"target", "format"} <= sink.fingerprints.keys()
        assert dict(sink.fingerprints) == dict(open_sink().fingerprints)
        assert len(msgspec.json.encode(dict(sink.state))) < MAX_STATE_BYTES
        msgspec.json.encode(dict(sink.environment))

    def test_settings_are_readable(self, make_sink: MakeSink) -> None:
        """Settings are JSON for the UI, and their text is the same in every process: no address in it."""
        sink = make_sink()
        msgspec.json.encode(sink.serialize())
        assert not re.search(r"0x[0-9a-f]{6,}", repr(sink))

    def test_closing_and_releasing_never_raise(self, open_sink: Callable[[], OpenSink]) -> None:
        """They come after failures of every kind: twice, or before the start, they do nothing."""
        sink = open_sink()
        sink.release()
        sink.close()
        sink.close()


class OwnedTargetContract(SinkContract):
    """For sinks whose target belongs to one run at a time."""

    def test_live_run_holds_its_target(self, open_sink: Callable[[], OpenSink]) -> None:
        """Another run is refused while the first is alive, and let in once it has released the target."""
        first, other = open_sink(), open_sink()
        first.start(leg(FIRST_TOKEN))
        with pytest.raises(TargetHeldError, match="run-1"):
            other.start(leg(SECOND_TOKEN, run="run-2", generation="0b0b0b0b"))
        first.release()
        other.start(leg(THIRD_TOKEN, run="run-2", generation="0b0b0b0b"))

    def test_next_leg_takes_over(self, open_sink: Callable[[], OpenSink], visible: Visible) -> None:
        """A leg that was superseded can neither renew nor publish: what the newer one did stays."""
        older, newer = open_sink(), open_sink()
        older.start(leg(FIRST_TOKEN))
        write(older, 1, [1, 2])
        newer.start(leg(SECOND_TOKEN, inherited=Inherited(token=FIRST_TOKEN, frontier=AFTER_BATCH_ONE)))
        with pytest.raises(SupersededError):
            older.publish(publication(2))
        with pytest.raises(SupersededError):
            older.renew(for_seconds=60)
        write(newer, 1, [3])
        newer.publish(publication(3))
        with pytest.raises(SupersededError):
            older.publish(publication(2))
        older.release()
        assert sorted(visible()) == as_text([1, 2, 3])


class StagedOutputContract(OwnedTargetContract):
    """For sinks whose output becomes visible in one step, from batches staged under each leg's token."""

    def test_nothing_is_visible_before_publishing(
        self, open_sink: Callable[[], OpenSink], visible: Visible
    ) -> None:
        """Readers see the output as a whole or not at all."""
        sink = open_sink()
        sink.start(leg(FIRST_TOKEN))
        write(sink, 1, [1, 2])
        assert visible() == []
        sink.publish(publication(2))
        assert sorted(visible()) == as_text([1, 2])

    def test_only_committed_batches_of_earlier_legs_count(
        self, open_sink: Callable[[], OpenSink], visible: Visible
    ) -> None:
        """What a killed leg wrote beyond its last save was done again: it must not be visible twice."""
        killed = open_sink()
        killed.start(leg(FIRST_TOKEN))
        write(killed, 1, [1, 2])
        write(killed, 2, [3, 4])
        write(killed, 3, [5, 6])
        resumed = open_sink()
        resumed.start(leg(SECOND_TOKEN, inherited=Inherited(token=FIRST_TOKEN, frontier=AFTER_BATCH_ONE)))
        write(resumed, 1, [3])
        write(resumed, 2, [4, 5, 6])
        resumed.publish(publication(6))
        assert sorted(visible()) == as_text([1, 2, 3, 4, 5, 6])

    def test_parts_of_a_leg_that_committed_nothing_do_not_count(
        self, open_sink: Callable[[], OpenSink], visible: Visible
    ) -> None:
        """Three legs, of which the middle one saved no progress, give what one leg would have given."""
        first, second, third = open_sink(), open_sink(), open_sink()
        first.start(leg(FIRST_TOKEN))
        write(first, 1, [1, 2])
        second.start(leg(SECOND_TOKEN, inherited=Inherited(token=FIRST_TOKEN, frontier=AFTER_BATCH_ONE)))
        write(second, 1, [3])
        nothing_new = AFTER_BATCH_ONE.for_new_leg()
        third.start(leg(THIRD_TOKEN, inherited=Inherited(token=SECOND_TOKEN, frontier=nothing_new)))
        write(third, 1, [3, 4])
        third.publish(publication(4))
        assert sorted(visible()) == as_text([1, 2, 3, 4])

    def test_late_write_of_an_older_leg_stays_invisible(
        self, open_sink: Callable[[], OpenSink], visible: Visible
    ) -> None:
        """A write that hung while a newer leg took over and published changes nothing that readers see."""
        older, newer = open_sink(), open_sink()
        older.start(leg(FIRST_TOKEN))
        hanging = older.begin(BatchKey(partition=0, number=1))
        hanging.add(made_up_records(2))
        newer.start(leg(SECOND_TOKEN, inherited=Inherited(token=FIRST_TOKEN, frontier=Frontier())))
        write(newer, 1, [1, 2])
        newer.publish(publication(2))
        hanging.write()
        assert sorted(visible()) == as_text([1, 2])

    def test_next_run_replaces_the_output(self, open_sink: Callable[[], OpenSink], visible: Visible) -> None:
        """A later run's output takes the place of the earlier one's: it is not added to."""
        for token, run, generation, ids in (
            (FIRST_TOKEN, "run-1", "0a0a0a0a", [1, 2, 3]),
            (SECOND_TOKEN, "run-2", "0b0b0b0b", [2, 4]),
        ):
            sink = open_sink()
            sink.start(leg(token, run=run, generation=generation))
            write(sink, 1, ids)
            sink.publish(publication(len(ids)))
            sink.release()
            assert sorted(visible()) == as_text(ids)
