"""The loop of one leg: the only place where progress moves.

::

    read pages ahead → throttle → cut into batches → transform → write, with retry, until durable
      → dead letters, durably → charge the error budget → at the end of a window: save the checkpoint
      → tell the listeners → ask whether to stop
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_batchkit.engine.batching import Batch, Lane, Slice
from airflow_batchkit.engine.charging import Charging
from airflow_batchkit.engine.exceptions import StoppedError, TransientError
from airflow_batchkit.engine.lanes import Lanes
from airflow_batchkit.engine.memory import freeze_what_stays
from airflow_batchkit.engine.watch import Watch

if TYPE_CHECKING:
    from airflow_batchkit.engine.checkpoint import Checkpoint
    from airflow_batchkit.engine.keeping import CheckpointKeeper
    from airflow_batchkit.engine.opening import Opened
    from airflow_batchkit.engine.reading import Arrival
    from airflow_batchkit.engine.stages import Stages
    from airflow_batchkit.engine.surroundings import Surroundings
    from airflow_batchkit.engine.telling import ProgressTracker
    from airflow_batchkit.engine.types import Page
    from airflow_batchkit.engine.writing import Outcome

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 1.5  # SIGKILL may follow a SIGTERM after 5 s: what is in flight gets a part of that
_RENEW_SECONDS = 10.0  # the sink knows its lease; it only has to be asked, also while no window ends


class Loop:
    """Moves one leg from where its checkpoint stands to the end of the source.

    :param around: the leg's surroundings.
    :param opened: source, sink and dead letters.
    :param checkpoint: brought up to date at the end of each window.
    :param stages: what a page passes through.
    :param keeper: saves the checkpoint.
    :param tracker: works out the progress.
    """

    def __init__(
        self,
        around: Surroundings,
        opened: Opened,
        checkpoint: Checkpoint,
        *,
        stages: Stages,
        keeper: CheckpointKeeper,
        tracker: ProgressTracker,
    ) -> None:
        job = around.job
        self._around = around
        self._job = job
        self._opened = opened
        self._checkpoint = checkpoint
        self._stages = stages
        self._keeper = keeper
        self._tracker = tracker
        self._charging = Charging(around, checkpoint, place=opened.dead_letters)
        self._teller = around.teller
        self._clock = around.clock
        self._watch = Watch(
            job.timeouts, around.clock, active_before=checkpoint.active_seconds, log=around.log
        )
        self._lanes = Lanes(
            tuple(opened.source.partitions),
            stages.reading,
            checkpoint.frontier,
            readers=job.readers,
            retry=job.batch_retry,
            max_wait_in_slot=around.max_wait_in_slot,
            clock=around.clock,
        )
        self._moved = False
        self._unsaved = False
        self._renewed_at = around.clock.monotonic()

    def run(self) -> None:
        """Go on until the source is read to its end and everything is durable, or ``max_batches`` is reached.

        :raises StoppedError: a stop was asked; everything up to the checkpoint is durable.
        """
        freeze_what_stays()
        with self._watch:
            while self._lanes and not self._enough():
                self._ask()
                arrival = self._stages.reading.next(_POLL_SECONDS, unless=self._stages.writers.any_ended)
                if arrival is not None:
                    self._take(arrival)
                self._commit(self._stages.writers.collect(0))
                self._lanes.begin_due()
                self._lanes.open_more()
            self._stages.reading.stop()
            self._await_writes()

    # reading

    def _take(self, arrival: Arrival) -> None:
        lane = self._lanes.of(arrival)
        if lane is None:
            return
        if arrival.error is not None:
            self._read_again_later(lane, arrival.error)
        elif arrival.page is None:
            self._close_batch(lane)
            lane.end()
        else:
            self._take_page(lane, arrival.page)

    def _take_page(self, lane: Lane, page: Page) -> None:
        self._wait("rate limit", self._stages.throttle.delay(records=len(page.records), nbytes=page.nbytes))
        for part in lane.cut(page, self._stages.limits):
            if part.records:
                self._add(lane, part)
            if part.fills:
                self._close_batch(lane)
                if self._enough():
                    return
        if page.window_end is not None:
            self._close_batch(lane)
            lane.end_window(page.window_end)

    def _read_again_later(self, lane: Lane, error: BaseException) -> None:
        what, tries, wait = self._lanes.read_again_later(lane, error)
        self._teller.tell(lambda listener: listener.on_retry(what, error, tries, wait))

    # batches

    def _add(self, lane: Lane, part: Slice) -> None:
        batch = lane.draft
        if batch is None:
            key = lane.next_key()
            batch = lane.draft = Batch(key, self._opened.sink.begin(key), lane.read_cursor)
        result = self._stages.transform(part.records, between=self._between_records)
        batch.writer.add(result.produced)
        batch.take(part, result)

    def _between_records(self) -> None:
        self._ask()
        self._commit(self._stages.writers.collect(0))

    def _close_batch(self, lane: Lane) -> None:
        batch = lane.close_draft()
        if batch is None:
            return
        writers = self._stages.writers
        while not writers.has_room(lane.partition):
            self._ask()
            self._commit(writers.collect(_POLL_SECONDS))
        writers.submit(batch)

    # commit

    def _commit(self, outcomes: Sequence[Outcome]) -> None:
        self._watch.seen()
        failed = next((outcome.error for outcome in outcomes if outcome.error is not None), None)
        for outcome in outcomes:
            if outcome.error is None:
                self._charging.take(outcome.letters)
                outcome.batch.tally.note(outcome.letters)
                outcome.batch.durable = True
        if self._move_frontier():
            self._watch.moved()
            self._moved = self._unsaved = True
            self._charging.charge()
            progress = self._tracker.progress()
            self._teller.tell(lambda listener: listener.on_progress(progress))
        self._keep_house()
        if failed is not None:
            raise failed

    def _move_frontier(self) -> bool:
        moved = False
        for batches in self._lanes.commit():
            moved = True
            for batch in batches:
                self._checkpoint.counts.add(batch.counts)
                self._checkpoint.note_errors(batch.tally)
        if moved:
            self._checkpoint.frontier = self._lanes.frontier
            self._opened.note_state(self._checkpoint)
        return moved

    def _keep_house(self) -> None:
        """Do what is due by the clock, whether or not something moved."""
        self._tell_notices()
        if self._unsaved and self._keeper.save_if_due(self._checkpoint, before=self._opened.sink.renew):
            self._unsaved = False
        if self._clock.monotonic() - self._renewed_at > _RENEW_SECONDS:
            self._renewed_at = self._clock.monotonic()
            self._keeper.renew(self._opened.sink.renew)

    # waiting and stopping

    def _await_writes(self) -> None:
        while self._stages.writers.in_flight:
            self._ask()
            self._commit(self._stages.writers.collect(_POLL_SECONDS))

    def _ask(self) -> None:
        self._watch.check()
        if self._around.stop.asked is None:
            return
        deadline = time.monotonic() + _GRACE_SECONDS
        while self._stages.writers.in_flight and time.monotonic() < deadline:
            # What fails now is not a failure of the run: the leg ends anyway, and the next does it again.
            with contextlib.suppress(TransientError, StoppedError):
                self._commit(self._stages.writers.collect(_POLL_SECONDS))
        self._around.stop.raise_if_asked()

    def _wait(self, reason: str, seconds: float) -> None:
        if seconds <= 0:
            return
        if seconds > self._around.max_wait_in_slot:
            self._await_writes()
            if self._moved:  # else the next leg would come to this same wait, again and again
                raise StoppedError(f"{reason}: {seconds:,.0f} s to wait", seconds)
        if seconds > 1:
            self._teller.tell(lambda listener: listener.on_waiting(reason, seconds))
        end = self._clock.monotonic() + seconds
        while (left := end - self._clock.monotonic()) > 0 and self._around.stop.asked is None:
            self._watch.check_run()
            self._commit(self._stages.writers.collect(min(left, _POLL_SECONDS)))
        self._watch.waited(seconds)
        self._tracker.waited(seconds)

    def _enough(self) -> bool:
        if self._job.max_batches is None:
            return False
        return self._checkpoint.counts.batches + self._lanes.ended_batches >= self._job.max_batches

    def _tell_notices(self) -> None:
        while self._around.notices:
            self._checkpoint.counts.retries += 1
            self._around.tell_retry(self._around.notices.popleft())
