"""The end of a run: both ends reconcile, dead letters settle, the output is published, all is marked so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_batchkit.engine.charging import whereabouts
from airflow_batchkit.engine.exceptions import ReconciliationError
from airflow_batchkit.engine.report import Report, count_dict, make_report
from airflow_batchkit.engine.sink import Publication

if TYPE_CHECKING:
    from airflow_batchkit.engine.checkpoint import Checkpoint
    from airflow_batchkit.engine.keeping import CheckpointKeeper
    from airflow_batchkit.engine.opening import Opened
    from airflow_batchkit.engine.surroundings import Surroundings
    from airflow_batchkit.engine.telling import ProgressTracker


class Finish:
    """What comes after the loop. Killed anywhere in it, the next leg comes straight here and does it again.

    :param around: the leg's surroundings.
    :param opened: source, sink and dead letters.
    :param checkpoint: everything in it is durable.
    :param keeper: saves the checkpoint.
    :param tracker: knows the times.
    """

    def __init__(
        self,
        around: Surroundings,
        opened: Opened,
        checkpoint: Checkpoint,
        *,
        keeper: CheckpointKeeper,
        tracker: ProgressTracker,
    ) -> None:
        self._job = around.job
        self._opened = opened
        self._checkpoint = checkpoint
        self._keeper = keeper
        self._tracker = tracker
        self._stop = around.stop
        self._teller = around.teller
        self._clock = around.clock
        self._log = around.log
        self._retrying = around.retrying(around.job.timeouts.run)

    def run(self) -> Report:
        """Reconcile, publish, mark completed.

        :raises ReconciliationError: the counts do not add up; nothing is published.
        :raises StoppedError: a stop was asked before the output was published.
        """
        difference = self._checkpoint.counts.difference()
        if difference is not None:
            raise ReconciliationError(
                f"{difference}; nothing is published, the staged parts stay for inspection"
            )
        self._tracker.touch()
        self._keeper.renew(self._opened.sink.renew)
        self._keeper.save(self._checkpoint)
        if self._job.local:
            self._keeper.delete()  # nothing was written: the next LOCAL run begins anew
            report = self._report("skipped", published={}, letters={})
        else:
            report = self._publish()
        self._teller.tell(lambda listener: listener.on_finish(report))
        return report

    def reveal_dead_letters(self) -> None:
        """Let readers see what a run gave up that fails for good; what goes wrong here is only logged.

        Ask only when the checkpoint is saved: what is to be seen is what it covers.
        """
        place, given_up = self._opened.dead_letters, self._checkpoint.counts.dead_lettered
        if place is None or not given_up or self._job.mode != "real":
            return
        publication = self._publication({})
        try:
            self._retrying("showing of the dead letters", lambda: place.reveal(publication))
        except Exception:  # noqa: BLE001  # the reason why the run fails is being raised already
            self._log.exception(
                "the dead letters of this run cannot be shown at %s; the run still has them", place.url
            )
        else:
            self._log.info("%s: %s", f"{given_up:,} records given up", whereabouts(place, self._checkpoint))

    def _publish(self) -> Report:
        self._stop.raise_if_asked()
        self._teller.tell(lambda listener: listener.on_publishing())
        letters = self._settle_dead_letters()
        publication = self._publication({**self._opened.source.state, "dead_letters": letters})
        published = self._retrying("publish", lambda: self._opened.sink.publish(publication))
        self._tracker.touch()
        report = self._report("completed", published=published, letters=letters)
        self._checkpoint.status = "completed"
        self._checkpoint.report = report.to_dict()
        # No leg will ask for these: the report needs the room.
        self._checkpoint.source, self._checkpoint.sink, self._checkpoint.samples = {}, {}, []
        self._keeper.save(self._checkpoint)
        self._opened.sink.release()
        return report

    def _settle_dead_letters(self) -> Mapping[str, Any]:
        place = self._opened.dead_letters
        if place is None:
            return {}
        publication = self._publication({})
        letters = self._retrying("settling of the dead letters", lambda: place.settle(publication))
        expected = self._checkpoint.counts.dead_lettered
        if letters.get("count") != expected:
            raise ReconciliationError(
                f"{expected:,} records were dead-lettered, but {letters.get('count')} dead letters are kept; "
                "nothing is published"
            )
        return letters

    def _publication(self, notes: Mapping[str, Any]) -> Publication:
        checkpoint = self._checkpoint
        return Publication(
            frontier=checkpoint.frontier,
            counts=count_dict(checkpoint.counts),
            fingerprints=checkpoint.fingerprints,
            notes={"started_at": checkpoint.started_at, "legs": checkpoint.legs, **notes},
            stop_asked=lambda: self._stop.asked,
        )

    def _report(self, status: str, *, published: Mapping[str, Any], letters: Mapping[str, Any]) -> Report:
        return make_report(
            self._checkpoint,
            job=self._job.name,
            status=status,
            published=published,
            dead_letters=letters,
            finished_at=self._clock.time(),
        )
