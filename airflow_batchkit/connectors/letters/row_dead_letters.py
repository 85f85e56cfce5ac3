"""Keeps dead letters in rows: staged while the run goes on, copied to where readers see them when it ends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.connectors.letters.row_sets import Head, read_head, switch
from airflow_batchkit.connectors.letters.row_staging import RowStaging, copied
from airflow_batchkit.engine.dead_letters import DeadLetter, OpenDeadLetters
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    PermanentError,
    ReconciliationError,
    SupersededError,
)
from airflow_batchkit.engine.failpoints import effect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_batchkit.connectors.letters.rows import LetterRows
    from airflow_batchkit.engine.sink import BatchKey, Inherited, Leg, Publication


def open_rows(rows: LetterRows) -> OpenRowDeadLetters:
    """Look at rows, and make them a place for dead letters; they are closed where they cannot be one.

    :raises UsageError: something else bears their name, or a right is missing.
    :raises TransientError: the server does not answer.
    """
    try:
        rows.check()
    except BatchkitError:
        rows.close()
        raise
    return OpenRowDeadLetters(rows)


class OpenRowDeadLetters(OpenDeadLetters):
    """A place for dead letters in rows, with its connections made.

    :param rows: where they lie; closed with this.
    """

    def __init__(self, rows: LetterRows) -> None:
        self._rows = rows
        self._parts: tuple[Leg, RowStaging] | None = None

    @property
    @override
    def url(self) -> str:
        return self._rows.url

    @override
    def start(self, leg: Leg) -> None:
        staging = RowStaging(self._rows, leg)
        staging.start()
        self._parts = leg, staging

    @override
    def put(self, key: BatchKey, letters: Sequence[DeadLetter]) -> None:
        self._started()[1].put(key, letters)

    @override
    def settle(self, publication: Publication) -> Mapping[str, Any]:
        _, staging = self._started()
        head, version = read_head(self._rows, staging.set_name)
        links, whole = staging.chain(publication.frontier)
        if head is None or not head.complete or not self._is_shown(head, links, whole=whole):
            head = self._show(publication, head, version, complete=True)
        staging.remove_all(keep=() if head is None else (head.part,))
        return {"place": f"{self.url} ({staging.set_name})", "count": 0 if head is None else head.records}

    @override
    def reveal(self, publication: Publication) -> int:
        """Copy what counts to where readers see it, marked as of a run that has not completed.

        :raises PermanentError: the letters of a run that completed are shown there.
        :raises SupersededError: a newer leg has shown its own.
        """
        leg, staging = self._started()
        head, version = read_head(self._rows, staging.set_name)
        links, whole = staging.chain(publication.frontier)
        if not self._is_shown(head, links, whole=whole):
            if head is not None and head.generation == leg.generation:
                if head.token not in {link.token for link in links}:
                    raise SupersededError(f"leg {head.token} has shown the dead letters of this run since")
            elif head is not None and head.complete:
                raise PermanentError(
                    f"{self.url} ({staging.set_name}) shows the letters of a run that completed: those of "
                    "this one stay hidden until it completes"
                )
            head = self._show(publication, head, version, complete=False)
        return 0 if head is None else head.records

    @override
    def close(self) -> None:
        self._rows.close()

    def _is_shown(self, head: Head | None, links: Sequence[Inherited], *, whole: bool) -> bool:
        """Whether readers see all that counts: an earlier leg was killed after its switch."""
        leg, staging = self._started()
        if head is None or head.generation != leg.generation:
            return False
        tokens = [link.token for link in links]
        if head.token not in tokens and whole:
            return False
        newer = links[: tokens.index(head.token)] if head.token in tokens else links
        return next(staging.counting(newer), None) is None

    def _show(
        self, publication: Publication, head: Head | None, version: str | None, *, complete: bool
    ) -> Head | None:
        leg, staging = self._started()
        given_up = publication.counts.get("dead_lettered", 0)
        if head is None and given_up == 0:
            return None
        part = f"{leg.token}.{'settled' if complete else 'shown'}"
        with effect("dead_letters.copy"):
            records = copied(
                self._rows,
                staging.set_name,
                staging.lines(publication.frontier),
                part=part,
                where=lambda number: f"letter {number:,} of {staging.set_name}",
            )
        if records != given_up:
            raise ReconciliationError(
                f"{given_up:,} records were dead-lettered, but {records:,} dead letters are at {self.url} "
                f"({staging.set_name}); nothing is published"
            )
        shown = Head(
            job=leg.job,
            run=leg.run,
            generation=leg.generation,
            token=leg.token,
            part=part,
            records=records,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            complete=complete,
        )
        switch(self._rows, staging.set_name, shown, version=version, name="dead_letters.switch")
        return shown

    def _started(self) -> tuple[Leg, RowStaging]:
        if self._parts is None:
            raise RuntimeError("start() comes before this call")
        return self._parts
