"""Records that were given up: kept with everything needed to understand them and to run them again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

from airflow_batchkit.engine.types import Record, on_one_line

if TYPE_CHECKING:
    from airflow_batchkit.engine.sink import BatchKey, Leg, Publication
    from airflow_batchkit.engine.source import OpenContext
    from airflow_batchkit.engine.types import Cursor, Rejection

MAX_MESSAGE = 2_000
MAX_STACK_TRACE = 8_000


class DeadLetter(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of a dead-letter object.

    :param job: what was running.
    :param run: which run of it.
    :param origin: what Airflow calls it: ``dag_id``, ``task_id``, ``run_id``, ``map_index``, ``try_number``.
    :param token: which leg.
    :param partition: name of the partition the record came from.
    :param batch: number of the batch, per leg and partition.
    :param cursor: its window was read after this; None at the beginning of the partition.
    :param id: the record's identity in its source.
    :param index: its index where the source is more than one.
    :param routing: its routing value where one is set.
    :param version: its version where the source tells versions apart.
    :param stage: who gave it up: ``source`` (which could not read it), ``transform`` or ``sink``.
    :param error_class: how the error is classed.
    :param error_type: exception class or the server's error type.
    :param message: bounded, without the record's content.
    :param stack_trace: bounded, trimmed in the middle.
    :param at: when it was given up last, in seconds since the epoch.
    :param first_at: when for the first time, where that was earlier.
    :param replays: how often it was replayed, and given up again.
    :param record: the record's exact bytes (but for line breaks between its tokens); of a record that could
        not be read, what there is of it.
    """

    job: str
    run: str
    origin: dict[str, str | int] = {}
    token: str
    partition: str
    batch: int
    cursor: dict[str, Any] | None = None
    id: str
    index: str | None = None
    routing: str | None = None
    version: int | None = None
    stage: str
    error_class: str
    error_type: str
    message: str
    stack_trace: str = ""
    at: float
    first_at: float | None = None
    replays: int = 0
    record: msgspec.Raw


class ReplayedRecord(Record, kw_only=True, gc=False):
    """A record that comes out of a dead letter: exactly as it was given up.

    :param letter: where it was kept. What fails again keeps from it all that the replay cannot know.
    """

    letter: DeadLetter


def bounded(text: str, limit: int) -> str:
    """Cut the middle out of a text that is too long: its beginning and its end tell the most."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - limit:,} characters left out …\n{text[-half:]}"


def envelope(
    rejection: Rejection,
    *,
    leg: Leg,
    key: BatchKey,
    cursor: Cursor | None = None,
    at: float | None = None,
) -> DeadLetter:
    """Wrap a rejected record for storing.

    :param cursor: after which its window was read.
    :param at: when it was given up. Default: now.
    """
    record = rejection.record
    letter = DeadLetter(
        job=leg.job,
        run=leg.run,
        origin=dict(leg.origin),
        token=leg.token,
        partition=leg.partitions[key.partition],
        batch=key.number,
        cursor=None if cursor is None else dict(cursor),
        id=record.id,
        index=record.index,
        routing=record.routing,
        version=record.version,
        stage=rejection.stage,
        error_class=rejection.error_class,
        error_type=rejection.error_type,
        message=bounded(rejection.message, MAX_MESSAGE),
        stack_trace=bounded(rejection.stack_trace, MAX_STACK_TRACE),
        at=time.time() if at is None else at,
        record=msgspec.Raw(on_one_line(bytes(record.body))),
    )
    return _again(letter, record.letter) if isinstance(record, ReplayedRecord) else letter


def _again(letter: DeadLetter, before: DeadLetter) -> DeadLetter:
    return msgspec.structs.replace(
        letter,
        job=before.job,
        run=before.run,
        origin=before.origin,
        token=before.token,
        partition=before.partition,
        batch=before.batch,
        cursor=before.cursor,
        first_at=before.at if before.first_at is None else before.first_at,
        replays=before.replays + 1,
    )


class OpenDeadLetters(Protocol):
    """A dead-letter place with its connections made."""

    @property
    def url(self) -> str:
        """The place, as ``batchkit dead-letters`` takes it; no credentials in it."""
        ...

    def start(self, leg: Leg) -> None:
        """Prepare the place for this leg; fails the run at once when it cannot be written."""
        ...

    def put(self, key: BatchKey, letters: Sequence[DeadLetter]) -> None:
        """Keep one batch's dead letters; durable on return, safe to call again. Runs in a writer thread."""
        ...

    def settle(self, publication: Publication) -> Mapping[str, Any]:
        """Move what counts to its final place and remove the rest; may be called again.

        :returns: ``place`` and ``count`` of the dead letters, as JSON types, for manifest and report.
        """
        ...

    def reveal(self, publication: Publication) -> int:
        """Let readers see what counts so far of a run that failed, marked as such; may be called again.

        Nothing is taken from what the run needs when it goes on: it settles the whole at its end.

        :returns: how many letters are to be seen.
        :raises PermanentError: the place shows something that must not be replaced.
        """
        ...

    def close(self) -> None:
        """Close sockets. Never raises."""
        ...


@runtime_checkable
class DeadLetterPlace(Protocol):
    """Settings of a place for dead letters (``DeadLetters("s3://…")``); opens nothing by itself."""

    def open(self, context: OpenContext) -> OpenDeadLetters:
        """Connect and look; writes nothing."""
        ...

    def serialize(self) -> dict[str, Any]:
        """Return the settings as JSON types, without secrets."""
        ...
