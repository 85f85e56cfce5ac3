"""Hands records to a Python function: a call per record, or per batch."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from typing_extensions import override

from airflow_batchkit.engine.exceptions import TransientError, UsageError
from airflow_batchkit.engine.failpoints import effect
from airflow_batchkit.engine.isolating import Isolating
from airflow_batchkit.engine.shrinking import Share
from airflow_batchkit.engine.types import Record, WriteResult
from airflow_batchkit.engine.values import Value, qualified_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_batchkit.engine.sink import BatchKey, Leg, Publication
    from airflow_batchkit.engine.source import OpenContext

_decode = msgspec.json.Decoder(dict).decode


def idempotency_key(leg: Leg, record: Record) -> str:
    """Return the key under which one record of one run is always handed over: 64 hex digits.

    It is made of the job, the run and the record's identity. So it is the same when a batch is tried again,
    when the run is resumed after a kill, and when the task is cleared; and another one in the next scheduled
    run, which bills the same customer for the next month. A receiver that remembers keys does nothing twice.
    """
    identity = msgspec.json.encode([leg.job, leg.run, record.index, record.routing, record.id])
    return hashlib.sha256(identity).hexdigest()


@dataclass(frozen=True, kw_only=True, repr=False)
class CallableSink(Value):
    """Calls a function with what was read: to bill, to notify, to fill a system that has no connector yet.

    With ``per="record"``: ``function(document, idempotency_key=…)``. With ``per="batch"``:
    ``function(documents, idempotency_keys=…)``, two lists of one length; it must do all or nothing.
    What the function may raise:

    - ``RecordError``: the record becomes a dead letter (a batch is halved until the bad record is alone);
    - ``BatchTooLargeError``: a batch is halved by its bytes; a record too large alone becomes a dead letter;
    - ``TransientError``: tried again from the call that failed, what was done stays done;
    - ``PushbackError``: the same, no sooner than it asks, with calls half as large; they grow back later;
    - anything else fails the run.

    The checkpoint is saved after each batch. After a kill the last batch is handed over again, with the same
    keys (:func:`idempotency_key`). Nothing guards the target against two runs at once.

    :param function: what to call; it runs in a writer thread, one call at a time.
    :param per: ``"record"`` or ``"batch"``. Default ``"record"``.
    """

    function: Callable[..., object]
    per: Literal["record", "batch"] = "record"

    @property
    def idempotent(self) -> bool:
        """False: nobody knows what the function does when it is called twice."""
        return False

    @property
    def one_write_per_partition(self) -> bool:
        """True: the function is called in the source's order."""
        return True

    @property
    def default_batch_bytes(self) -> int:
        """1 MiB."""
        return 1024 * 1024

    @property
    def default_batch_records(self) -> int | None:
        """100: as many calls as may be made twice after a kill."""
        return 100

    @override
    def check(self) -> None:
        """Refuse what cannot be called.

        :raises UsageError: ``function`` is no function, or ``per`` is neither record nor batch.
        """
        if not callable(self.function):
            raise UsageError(f"CallableSink(function=…): {type(self.function).__name__} is not a function")
        if self.per not in {"record", "batch"}:
            raise UsageError(f"CallableSink(per={self.per!r}): must be 'record' or 'batch'")

    def open(self, context: OpenContext) -> OpenCallableSink:
        """Open the sink; calls nothing."""
        return OpenCallableSink(self, context)


class OpenCallableSink:
    """An open :class:`CallableSink`, one per leg."""

    def __init__(self, settings: CallableSink, context: OpenContext) -> None:
        self.per_record = settings.per == "record"
        self.name = qualified_name(settings.function)
        self._settings = settings
        self._log = context.log
        self._closed = threading.Event()
        self._leg: Leg | None = None
        self.share = Share()

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """The function's name, and how it is called."""
        return {
            "target": hashlib.sha256(self.name.encode()).hexdigest()[:16],
            "format": f"per {self._settings.per}",
        }

    @property
    def environment(self) -> Mapping[str, Any]:
        """The function's name, and how it is called."""
        return {"sink": "callable", "function": self.name, "per": self._settings.per}

    @property
    def state(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def start(self, leg: Leg) -> None:
        """Remember the leg; there is no target that could be owned."""
        self._leg = leg
        self._log.info(
            "%s() has no owner record: do not let two runs of %s call it at once", self.name, leg.job
        )

    def begin(self, key: BatchKey) -> CallableWriter:
        """Begin a batch."""
        del key
        return CallableWriter(self)

    def call(self, records: Sequence[Record]) -> WriteResult:
        """Hand records over in one call.

        :raises TransientError: the sink was closed meanwhile; or what the function raised.
        """
        assert self._leg is not None, "start() comes before the first batch"  # noqa: S101  # narrows the type
        if self._closed.is_set():
            raise TransientError(f"{self.name}() was to be called when the sink was closed")
        documents = [_decode(record.body) for record in records]
        keys = [idempotency_key(self._leg, record) for record in records]
        with effect("callable.call"):
            if self.per_record:
                self._settings.function(documents[0], idempotency_key=keys[0])
            else:
                self._settings.function(documents, idempotency_keys=keys)
        return WriteResult(written=len(records))

    def renew(self, *, for_seconds: float = 0.0) -> None:
        """Do nothing: there is no lease."""

    def publish(self, publication: Publication) -> Mapping[str, Any]:
        """Return what was done; it has been visible since it was done."""
        return {"location": f"{self.name}()", "written": publication.counts.get("written", 0)}

    def release(self) -> None:
        """Do nothing: there is no owner."""

    def close(self) -> None:
        """Make no further call; one that is under way is not interrupted."""
        self._closed.set()


class CallableWriter(Isolating):
    """One batch on its way into the function.

    :param sink: calls it.
    """

    def __init__(self, sink: OpenCallableSink) -> None:
        super().__init__(sink.call, at_once=1 if sink.per_record else None, share=sink.share)
