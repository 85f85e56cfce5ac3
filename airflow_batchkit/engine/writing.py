"""Makes batches durable: records first, then dead letters, each with its retries, in daemon threads."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import tenacity

from airflow_batchkit.engine.dead_letters import DeadLetter, envelope
from airflow_batchkit.engine.exceptions import PushbackError, TransientError
from airflow_batchkit.engine.sink import GradualWriter

if TYPE_CHECKING:
    from airflow_batchkit.engine.batching import Batch
    from airflow_batchkit.engine.dead_letters import OpenDeadLetters
    from airflow_batchkit.engine.policies import BatchRetry
    from airflow_batchkit.engine.sink import BatchWriter, Leg
    from airflow_batchkit.engine.stop import Stop

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Notice:
    """A retry that a thread made, for the listeners (which only the main thread calls)."""

    what: str
    error: BaseException
    tries: int
    wait: float


class _Patience:
    """Counts the tries in vain of one call, and says how long to wait after each.

    :param policy: how often and how patiently.
    :param total_seconds: all tries and waits together.
    :param done: how much the call has got done so far.
    """

    def __init__(self, policy: BatchRetry, total_seconds: float, done: Callable[[], int]) -> None:
        self._policy = policy
        self._total_seconds = total_seconds
        self._done = done
        self._done_before = done()
        self.tries = 0

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds to wait; asked once after each failed try, before :meth:`is_out`."""
        done = self._done()
        self.tries = self.tries + 1 if done == self._done_before else 1
        self._done_before = done
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, PushbackError) else None
        return self._policy.pause(self.tries, asked=asked)

    def is_out(self, state: tenacity.RetryCallState) -> bool:
        """Whether there were tries enough, or the next would come too late."""
        next_try = (state.seconds_since_start or 0.0) + state.upcoming_sleep
        return self.tries >= self._policy.max_tries or next_try >= self._total_seconds


class Retrying:
    """Calls something again while it fails in a way that may pass; the real last exception comes through.

    :param policy: how often and how patiently.
    :param total_seconds: all tries and waits together; a wait that would end later is not begun.
    :param stop: a stop request ends the waiting.
    :param max_wait_in_slot: a longer wait that the other side asks for is not sat out here: it is raised.
    :param notify: told of every retry.
    """

    def __init__(
        self,
        policy: BatchRetry,
        *,
        total_seconds: float,
        stop: Stop,
        max_wait_in_slot: float,
        notify: Callable[[Notice], None],
    ) -> None:
        self._policy = policy
        self._total_seconds = total_seconds
        self._stop = stop
        self._max_wait_in_slot = max_wait_in_slot
        self._notify = notify

    def __call__(self, what: str, function: Callable[[], T], *, done: Callable[[], int] = lambda: 0) -> T:
        """Call ``function`` until it returns, fails for good, or the tries are used up.

        :param what: names the call for people (``"write of batch 3 of orders.0"``).
        :param done: how much it has got done so far: a try that moved this is the first of a new count.
        :raises StoppedError: a stop was asked while waiting for the next try.
        """
        patience = _Patience(self._policy, self._total_seconds, done)

        def tell(state: tenacity.RetryCallState) -> None:
            self._tell(what, patience.tries, state)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._worth_waiting),
            stop=patience.is_out,
            wait=patience.wait,
            sleep=self._sleep,
            before_sleep=tell,
            reraise=True,
        )
        return retrying(function)

    def _worth_waiting(self, error: BaseException) -> bool:
        if isinstance(error, PushbackError) and (error.retry_after or 0) > self._max_wait_in_slot:
            return False
        return isinstance(error, TransientError)

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(seconds)
        self._stop.raise_if_asked()

    def _tell(self, what: str, tries: int, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        assert error is not None, "only what failed is tried again"  # noqa: S101  # narrows the type
        self._notify(Notice(what, error, tries, state.upcoming_sleep))


@dataclass(slots=True)
class Outcome:
    """How one batch ended: durable with its dead letters, or failed."""

    batch: Batch
    letters: list[DeadLetter]
    error: BaseException | None = None


class Writers:
    """A few daemon threads that write batches; a write that hangs cannot hold the process.

    :param count: writes in flight.
    :param one_per_partition: True: at most one write per partition at a time.
    :param leg: for the dead letters' envelopes.
    :param dead_letters: where given-up records are kept, None when there is no place.
    :param retrying: wraps each write and each put.
    :param changed: shared with the readers, so that the loop can wait for either. Default: one of its own.
    """

    def __init__(
        self,
        count: int,
        *,
        one_per_partition: bool,
        leg: Leg,
        dead_letters: OpenDeadLetters | None,
        retrying: Retrying,
        changed: threading.Condition | None = None,
    ) -> None:
        self._count = count
        self._one_per_partition = one_per_partition
        self._leg = leg
        self._dead_letters = dead_letters
        self._retrying = retrying
        self._work: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._changed = changed or threading.Condition()
        self._outcomes: deque[Outcome] = deque()
        self._in_flight: list[Batch] = []
        for number in range(1, count + 1):
            threading.Thread(target=self._run, name=f"batchkit-write-{number}", daemon=True).start()

    @property
    def in_flight(self) -> int:
        """Batches handed over and not collected yet."""
        return len(self._in_flight)

    def any_ended(self) -> bool:
        """Whether :meth:`collect` would return something at once."""
        return bool(self._outcomes)

    def has_room(self, partition: int) -> bool:
        """Whether a batch of this partition may be handed over now."""
        if len(self._in_flight) >= self._count:
            return False
        return not self._one_per_partition or all(
            batch.key.partition != partition for batch in self._in_flight
        )

    def submit(self, batch: Batch) -> None:
        """Hand a batch over; ask :meth:`has_room` first."""
        self._in_flight.append(batch)
        self._work.put(batch)

    def collect(self, timeout: float) -> list[Outcome]:
        """Return the batches that ended; wait up to ``timeout`` seconds for the first."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._outcomes), timeout)
            outcomes = list(self._outcomes)
            self._outcomes.clear()
        for outcome in outcomes:
            self._in_flight.remove(outcome.batch)
        return outcomes

    def stop(self) -> None:
        """Let the threads end after what they do now."""
        for _ in range(self._count):
            self._work.put(None)

    def _run(self) -> None:
        # Without a timeout on purpose: the thread is a daemon, and stop() wakes it.
        while (batch := self._work.get()) is not None:
            outcome = Outcome(batch, [])
            try:
                outcome.letters = self._make_durable(batch)
            except BaseException as error:  # noqa: BLE001  # handed to the loop, which raises it in the main thread
                outcome.error = error
            with self._changed:
                self._outcomes.append(outcome)
                self._changed.notify_all()

    def _make_durable(self, batch: Batch) -> list[DeadLetter]:
        where = f"batch {batch.key.number} of {self._leg.partitions[batch.key.partition]}"
        writer = batch.writer
        result = self._retrying(f"write of {where}", writer.write, done=lambda: _done_by(writer))
        batch.counts.written += result.written
        batch.counts.unchanged += result.unchanged
        batch.counts.skipped += result.skipped
        batch.counts.dead_lettered_by_sink += len(result.rejected)
        letters = [
            envelope(rejection, leg=self._leg, key=batch.key, cursor=batch.after)
            for rejection in (*batch.rejected, *result.rejected)
        ]
        batch.rejected.clear()
        place = self._dead_letters
        if letters and place is not None:
            self._retrying(f"dead letters of {where}", lambda: place.put(batch.key, letters))
        return letters


def _done_by(writer: BatchWriter) -> int:
    return writer.done if isinstance(writer, GradualWriter) else 0
