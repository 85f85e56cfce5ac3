"""Handing records over in one call, and in smaller ones where the other side refuses the whole."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence

from airflow_batchkit.engine.exceptions import BatchTooLargeError, PushbackError, RecordError
from airflow_batchkit.engine.shrinking import Share
from airflow_batchkit.engine.types import Record, Rejection, WriteResult, record_size


class Isolating:
    """Writes records by calls that do all or nothing, and finds the records that they fail for.

    What is refused is handed over again in two parts: halves by number for a ``RecordError``, by bytes for a
    ``BatchTooLargeError``. A record that is refused alone is given up. ``k`` such records among ``n`` cost at
    most ``2 · k · log2 n`` calls more (n rounded up to a power of two). Every other error comes through, and
    the next :meth:`write` goes on with the call that failed: what was done stays done. A ``PushbackError``
    makes the calls after it half as large, until calls that succeed make them grow again.

    :param call: hands records over and counts what became of them.
    :param at_once: the most records of one call; None: all of them.
    :param share: how large calls may be now; shared by the batches of a leg. Default: one of its own.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Record]], WriteResult],
        *,
        at_once: int | None = None,
        share: Share | None = None,
    ) -> None:
        self._call = call
        self._at_once = at_once
        self._share = share or Share()
        self._whole = 0
        self._added: list[Record] = []
        #: What is still to be handed over, the next call last: it outlives a failed try.
        self._pending: list[Sequence[Record]] = []
        self._result = WriteResult()

    @property
    def done(self) -> int:
        """Records that are durable or given up, also while :meth:`write` fails."""
        result = self._result
        return result.written + result.unchanged + result.skipped + len(result.rejected)

    def add(self, records: Iterable[Record]) -> None:
        """Take records in; nothing is handed over yet."""
        self._added.extend(records)

    def write(self) -> WriteResult:
        """Call until everything is durable or given up.

        :raises TransientError: what a call raised; call again.
        """
        if self._added:
            step = self._at_once or len(self._added)
            parts = [self._added[start : start + step] for start in range(0, len(self._added), step)]
            self._pending = [*reversed(parts)]
            self._added, self._whole = [], step
        while self._pending:
            self._hand_over(self._next())
        return self._result

    def _next(self) -> Sequence[Record]:
        """Return the records of the next call, which stand last among what is pending."""
        records = self._pending[-1]
        most = self._share.of(self._whole)
        if len(records) > most:
            self._pending[-1:] = [records[most:], records[:most]]
        return self._pending[-1]

    def _hand_over(self, records: Sequence[Record]) -> None:
        try:
            result = self._call(records)
        except (RecordError, BatchTooLargeError) as error:
            self._pending[-1:] = self._smaller(records, error)
        except PushbackError:
            self._share.pushed_back(len(records) / self._whole)
            raise
        else:
            self._pending.pop()
            self._count(result)
            self._share.succeeded()

    def _smaller(
        self, records: Sequence[Record], error: RecordError | BatchTooLargeError
    ) -> list[Sequence[Record]]:
        """Return what to hand over instead, the next call last; nothing for a record that is given up."""
        if len(records) == 1:
            self._result.rejected.append(_rejection(records[0], error))
            return []
        by_bytes = isinstance(error, BatchTooLargeError)
        middle = _middle_by_bytes(records) if by_bytes else len(records) // 2
        return [records[middle:], records[:middle]]

    def _count(self, result: WriteResult) -> None:
        self._result.written += result.written
        self._result.unchanged += result.unchanged
        self._result.skipped += result.skipped
        self._result.rejected += result.rejected


def _middle_by_bytes(records: Sequence[Record]) -> int:
    """Return where to cut so that both parts have records, and about as many bytes."""
    half = sum(map(record_size, records)) / 2
    taken = 0
    for number, record in enumerate(records[:-1], start=1):
        taken += record_size(record)
        if taken >= half:
            return number
    return len(records) - 1


def _rejection(record: Record, error: RecordError | BatchTooLargeError) -> Rejection:
    return Rejection(
        record=record,
        stage="sink",
        error_class="size" if isinstance(error, BatchTooLargeError) else "record",
        error_type=type(error).__qualname__,
        message=str(error),
        stack_trace="".join(traceback.format_exception(error)),
    )
