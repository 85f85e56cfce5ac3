"""One leg, whole: decide, open, claim, loop, publish; or leave so that the next leg can go on."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_batchkit.engine.clock import Clock, SystemClock
from airflow_batchkit.engine.exceptions import StoppedError, SupersededError, TransientError
from airflow_batchkit.engine.finish import Finish
from airflow_batchkit.engine.keeping import ChangedMeanwhileError, CheckpointKeeper
from airflow_batchkit.engine.loop import Loop
from airflow_batchkit.engine.opening import Opened, next_checkpoint, open_all
from airflow_batchkit.engine.report import Plan, Report
from airflow_batchkit.engine.resumption import decide
from airflow_batchkit.engine.sink import Leg
from airflow_batchkit.engine.stages import Stages
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.engine.surroundings import Surroundings
from airflow_batchkit.engine.telling import ProgressTracker, Teller
from airflow_batchkit.engine.values import plain

if TYPE_CHECKING:
    from airflow_batchkit.engine.checkpoint import Checkpoint, CheckpointStore
    from airflow_batchkit.engine.connections import Connections
    from airflow_batchkit.engine.job import Job, RunIdentity
    from airflow_batchkit.engine.listener import Listener
    from airflow_batchkit.engine.resumption import Decision

_BEGINNINGS = 3  # looks at a checkpoint that other legs go on saving meanwhile
_FIRST_PAUSE = 30.0
_LONGEST_PAUSE = 600.0


class Pipeline:
    """Runs a job for one leg.

    :param job: what to do.
    :param identity: which run this is.
    :param store: where the checkpoint is kept.
    :param key: its name there; LOCAL and partial runs add their mode to it.
    :param connections: makes clients.
    :param stop: how to ask the leg to stop. Default: nobody does.
    :param listeners: who looks on.
    :param environment: more facts for the start block (Airflow's version, the host).
    :param max_wait_in_slot: seconds; a longer wait ends the leg instead, to come back later. Default 60.
    :param max_stuck_legs: legs in a row that may fail at one cursor before the failure counts. Default 3.
    :param max_legs: legs that one run may have. Default 200.
    :param clock: where the time comes from.
    :param log: where the engine says what it does.
    """

    def __init__(
        self,
        job: Job,
        *,
        identity: RunIdentity,
        store: CheckpointStore,
        key: str,
        connections: Connections,
        stop: Stop | None = None,
        listeners: Sequence[Listener] = (),
        environment: Mapping[str, Any] | None = None,
        max_wait_in_slot: float = 60.0,
        max_stuck_legs: int = 3,
        max_legs: int = 200,
        clock: Clock | None = None,
        log: logging.Logger | None = None,
    ) -> None:
        self._job = job
        self._identity = identity
        self._store = store
        self._connections = connections
        self._environment = dict(environment or {})
        self._max_stuck_legs = max_stuck_legs
        self._max_legs = max_legs
        self._clock = clock or SystemClock()
        self._log = log or logging.getLogger("airflow_batchkit")
        self._teller = Teller(listeners, self._log)
        self._around = Surroundings(
            job=job,
            stop=stop or Stop(),
            clock=self._clock,
            teller=self._teller,
            log=self._log,
            max_wait_in_slot=max_wait_in_slot,
        )
        self._keeper = CheckpointKeeper(
            store,
            key if job.mode == "real" else f"{key}.{job.mode}",
            clock=self._clock,
            retrying=self._around.retrying(job.timeouts.request),
            save_each=not job.sink.idempotent,
            saved=self._tell_saved,
        )

    def run(self) -> Report:
        """Run until the source is read and the output published.

        :returns: the final report; the stored one when the run was complete already.
        :raises StoppedError: the leg ended before the run did; ``resume_after`` says when to go on.
        :raises TransientError: nothing could be begun, or the run is stuck at one cursor.
        :raises PermanentError: a person has to look.
        :raises SupersededError: a newer leg took over.
        """
        try:
            return self._leg()
        except Exception as error:
            failure = error  # the name of an except clause is gone when the lambda runs
            self._teller.tell(lambda listener: listener.on_failure(failure))
            raise

    def _leg(self) -> Report:
        for _ in range(_BEGINNINGS - 1):
            with contextlib.suppress(ChangedMeanwhileError):
                return self._begin()
        return self._begin()

    def _begin(self) -> Report:
        stored, decision = self._decide()
        self._log.info("%s", decision.reason)
        if decision.action == "done" and stored is not None and stored.report is not None:
            return Report.from_dict(stored.report)
        started_at = stored.started_at if decision.action == "resume" and stored else self._clock.time()
        opened = open_all(
            self._job,
            connections=self._connections,
            started_at=started_at,
            stored=stored if decision.action == "resume" else None,
            log=self._log,
        )
        try:
            checkpoint, leg = next_checkpoint(
                self._job,
                self._identity,
                opened,
                decision=decision,
                stored=stored,
                clock=self._clock,
                started_at=started_at,
            )
            self._claim(opened, checkpoint, leg)
            self._teller.tell(
                lambda listener: listener.on_start(self._facts(opened, checkpoint, leg, decision))
            )
            return self._go(opened, checkpoint, leg)
        finally:
            opened.close()

    def plan(self) -> Plan:
        """Look at what a run would do; claims, reads and writes nothing.

        :raises UsageError: the settings do not fit what is there.
        """
        stored, decision = self._decide()
        resumed = stored if decision.action == "resume" else None
        opened = open_all(
            self._job,
            connections=self._connections,
            started_at=self._clock.time() if resumed is None else resumed.started_at,
            stored=resumed,
            log=self._log,
        )
        try:
            return Plan(
                decision=decision.reason,
                settings=plain(self._job),
                source=plain(opened.source.environment),
                sink=plain(opened.sink.environment),
                partitions=len(opened.source.partitions),
                total=opened.source.total,
                already_read=0 if resumed is None else resumed.counts.read,
            )
        finally:
            opened.close()

    # before the loop

    def _decide(self) -> tuple[Checkpoint | None, Decision]:
        stored = self._keeper.load(ignore_damage=self._identity.restart)
        decision = decide(
            stored,
            self._identity,
            mode=self._job.mode,
            now=self._clock.time(),
            start_at=self._job.start_at,
        )
        return stored, decision

    def _claim(self, opened: Opened, checkpoint: Checkpoint, leg: Leg) -> None:
        opened.sink.start(leg)
        try:
            if opened.dead_letters is not None:
                opened.dead_letters.start(leg)
            opened.note_state(checkpoint)
            # Asked for a pause, however short, a sink looks at the target itself.
            self._keeper.claim(checkpoint, confirm=lambda: opened.sink.renew(for_seconds=1.0))
        except ChangedMeanwhileError:
            opened.sink.release()  # the run may turn out to be complete
            raise
        except (TransientError, StoppedError, SupersededError):
            raise
        except Exception:
            opened.sink.release()
            raise

    def _facts(self, opened: Opened, checkpoint: Checkpoint, leg: Leg, decision: Decision) -> dict[str, Any]:
        total = opened.source.total
        return {
            "job": leg.job,
            "run": leg.run,
            "leg": checkpoint.legs,
            "token": leg.token,
            "generation": leg.generation,
            "mode": leg.mode,
            "begins": decision.reason,
            "checkpoint": self._store.description,
            "total": "unknown" if total is None else f"{'' if total.exact else '~'}{total.records:,}",
            "partitions": len(leg.partitions),
            "settings": plain(self._job),
            "source": plain(opened.source.environment),
            "sink": plain(opened.sink.environment),
            "environment": plain(self._environment),
        }

    def _tell_saved(self, checkpoint: Checkpoint) -> None:
        self._teller.tell(lambda listener: listener.on_saved(checkpoint))

    # the loop and its ends

    def _go(self, opened: Opened, checkpoint: Checkpoint, leg: Leg) -> Report:
        tracker = ProgressTracker(checkpoint, opened.source.total, self._clock)
        finish = Finish(self._around, opened, checkpoint, keeper=self._keeper, tracker=tracker)
        began_at = checkpoint.frontier
        try:
            self._loop(opened, checkpoint, leg, tracker)
            return finish.run()
        except SupersededError:
            raise
        except StoppedError as stopped:
            if checkpoint.frontier != began_at:
                checkpoint.stuck_legs = 0
            self._leave(opened, checkpoint, tracker, pause=stopped.resume_after)
            raise
        except TransientError as error:
            pause = self._pause(checkpoint, error, moved=checkpoint.frontier != began_at)
            self._leave(opened, checkpoint, tracker, pause=pause)
            if pause is None:
                raise
            raise StoppedError(f"{type(error).__name__}: {error}", pause) from error
        except Exception:
            checkpoint.status = "failed"
            if self._leave(opened, checkpoint, tracker, pause=None):
                finish.reveal_dead_letters()
            opened.sink.release()
            raise

    def _loop(self, opened: Opened, checkpoint: Checkpoint, leg: Leg, tracker: ProgressTracker) -> None:
        stages = Stages.of(self._around, opened, leg)
        try:
            Loop(self._around, opened, checkpoint, stages=stages, keeper=self._keeper, tracker=tracker).run()
        finally:
            stages.stop()

    def _pause(self, checkpoint: Checkpoint, error: TransientError, *, moved: bool) -> float | None:
        """Decide whether a transient failure is sat out (seconds until the next leg) or counts (None)."""
        checkpoint.stuck_legs = 0 if moved else checkpoint.stuck_legs + 1
        if checkpoint.stuck_legs >= self._max_stuck_legs:
            checkpoint.stuck_legs = 0
            return None
        if checkpoint.legs >= self._max_legs:
            return None
        asked = getattr(error, "retry_after", None) or 0.0
        return max(asked, min(_FIRST_PAUSE * 2.0**checkpoint.stuck_legs, _LONGEST_PAUSE))

    def _leave(
        self, opened: Opened, checkpoint: Checkpoint, tracker: ProgressTracker, *, pause: float | None
    ) -> bool:
        """Save what is durable on the way out; a failure to do so must not hide why the leg ends.

        :returns: whether it is saved, and the target still this leg's.
        """
        tracker.touch()
        try:
            # The save first: a renewal that hangs must not cost it its three seconds.
            self._keeper.save(checkpoint)
            opened.sink.renew(for_seconds=pause or 0.0)
        except SupersededError:
            raise
        except Exception:  # noqa: BLE001  # the reason why the leg ends is being raised already
            self._log.exception("the last save of this leg failed; the next goes on from the save before it")
            return False
        return True
