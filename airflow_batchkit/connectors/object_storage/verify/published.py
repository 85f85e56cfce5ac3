"""Reads back what a run has just published, and fails the run where it is not what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from airflow_batchkit.connectors.object_storage.verify.output import Onlooker, OutputVerifier
from airflow_batchkit.engine.exceptions import PermanentError

if TYPE_CHECKING:
    import logging

    from airflow_batchkit.connectors.object_storage.ownership import Ownership
    from airflow_batchkit.connectors.object_storage.store import ObjectStore
    from airflow_batchkit.connectors.object_storage.verify.objects import ObjectFound
    from airflow_batchkit.engine.sink import Leg, Publication


class PublishedCheck(Onlooker):
    """Verifies the output of one leg's run while the leg still owns it.

    :param store: where the output lies.
    :param leg: the leg.
    :param root: prefix of all keys: empty, or a folder with a slash at its end.
    :param ownership: its lease is renewed between two objects.
    :param seconds: the longest time for one object.
    :param log: where to say what is done.
    """

    def __init__(
        self,
        store: ObjectStore,
        leg: Leg,
        *,
        root: str,
        ownership: Ownership,
        seconds: float,
        log: logging.Logger,
    ) -> None:
        self._store = store
        self._leg = leg
        self._root = root
        self._ownership = ownership
        self._seconds = seconds
        self._log = log

    def __call__(self, publication: Publication) -> None:
        """Read everything back.

        :raises PermanentError: it is not whole, or not this run's.
        :raises StoppedError: a stop was asked; the next leg begins the reading anew.
        """
        self._log.info("reads back what was published")
        found = OutputVerifier(
            self._store,
            root=self._root,
            seconds=self._seconds,
            stop_asked=publication.stop_asked,
            onlookers=[self],
            log=self._log,
        ).run()
        if not found.whole:
            first, *more = found.problems.lines()
            others = f"; {len(more):,} more are in the log" if more else ""
            for line in more:
                self._log.error("%s", line)
            raise PermanentError(
                f"what was published at {found.location} is damaged: {first}{others}; "
                "no older object was removed: restart the run"
            )
        if found.head is None or found.head.generation != self._leg.generation:
            raise PermanentError(
                f"{found.location} does not show this run's output ({self._leg.generation}): "
                "somebody replaced it; restart the run"
            )

    @override
    def seen(self, found: ObjectFound) -> None:
        self._ownership.renew_if_due()
