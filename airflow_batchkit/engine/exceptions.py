"""Everything the package raises, its roots by what the caller can do about it.

::

    BatchkitError
    ├── UsageError                 a setting is wrong: change it (exit code 2)
    ├── TransientError             may work next time: try again
    │   ├── PushbackError          the other side says slow down: wait, then try again
    │   ├── NoProgressError        no cursor moved for too long
    │   └── TargetHeldError        another live run owns the target: wait for it, or stop it
    ├── PermanentError             will not work next time either: someone has to look
    │   ├── BatchTooLargeError     the other side takes no batch of this size: send less at once
    │   ├── CannotResumeError      the checkpoint does not fit this job (changed, too old, damaged)
    │   ├── ErrorBudgetExceededError   more records were given up than allowed (exit code 3)
    │   ├── ReconciliationError    what was read and what was written do not add up
    │   ├── OrderError             the source does not deliver in the order its cursor needs
    │   └── RunTimeoutError        the whole run took longer than ``Timeouts.run``
    ├── RecordError                this record alone cannot be processed: it becomes a dead letter
    ├── SupersededError            a newer leg took over: stop quietly, touch nothing
    └── StoppedError               someone asked us to stop, or to come back later (exit code 4)

Fields are passed through ``args``, so that every error survives pickling.
"""

from __future__ import annotations

from typing_extensions import override

__all__ = [
    "BatchTooLargeError",
    "BatchkitError",
    "CannotResumeError",
    "ErrorBudgetExceededError",
    "NoProgressError",
    "OrderError",
    "PermanentError",
    "PushbackError",
    "ReconciliationError",
    "RecordError",
    "RunTimeoutError",
    "StoppedError",
    "SupersededError",
    "TargetHeldError",
    "TransientError",
    "UsageError",
]


class BatchkitError(Exception):
    """Root of every error of this package; ``str()`` of it is one line that a person can act on."""


class UsageError(BatchkitError):
    """A setting is wrong or missing; nothing was read or written."""


class TransientError(BatchkitError):
    """The same call may work later."""


LONGEST_RETRY_AFTER = 3600.0


class _LaterError(TransientError):
    """A transient error that may know when to try again.

    :param message: what happened.
    :param retry_after: seconds until it makes sense to try again; None when nobody said.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)

    @override
    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def retry_after(self) -> float | None:
        """Seconds until it makes sense to try again, at most an hour; None when nobody said anything sane.

        Who asks for a day is asked again after an hour: a mistyped header must not end a run unnoticed.
        """
        said = self.args[1]
        if not isinstance(said, int | float) or not said >= 0:  # NaN is not below 0 either
            return None
        return float(min(said, LONGEST_RETRY_AFTER))


class PushbackError(_LaterError):
    """The other side asks us to slow down (429, 503, ``SlowDown``, rejected execution).

    :param message: what was refused, and by whom.
    :param retry_after: seconds that the other side asked us to wait; None when it did not say.
    """


class NoProgressError(TransientError):
    """No cursor moved for longer than ``Timeouts.no_progress``."""


class TargetHeldError(_LaterError):
    """Another live run owns the target.

    :param message: which run holds the target, since when and until when.
    :param retry_after: seconds until its lease ends.
    """


class PermanentError(BatchkitError):
    """The same call will fail again; a person has to look."""


class BatchTooLargeError(PermanentError):
    """One request is larger than the other side takes (413); a smaller one may do."""


class CannotResumeError(PermanentError):
    """The stored checkpoint does not belong to this job any more, is too old, or is damaged."""


class ErrorBudgetExceededError(PermanentError):
    """More records were dead-lettered than the error budget allows."""


class ReconciliationError(PermanentError):
    """The counts of source, transform, sink and dead letters do not add up."""


class OrderError(PermanentError):
    """The source delivered a key twice or went backwards, so that its cursor cannot be trusted."""


class RunTimeoutError(PermanentError):
    """The run, over all its legs, took longer than ``Timeouts.run``."""


class RecordError(BatchkitError):
    """One record cannot be processed; raise it from a transform to send the record to the dead letters."""


class SupersededError(BatchkitError):
    """A newer leg of the same run owns the checkpoint or the target; this leg must touch nothing more."""


class StoppedError(BatchkitError):
    """The leg ended before the run did, at a place from which the next leg goes on.

    :param reason: why, for people.
    :param resume_after: seconds to wait before the next leg; None when a person decides.
    """

    def __init__(self, reason: str, resume_after: float | None = None) -> None:
        super().__init__(reason, resume_after)

    @override
    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def reason(self) -> str:
        """Why the leg ended."""
        return str(self.args[0])

    @property
    def resume_after(self) -> float | None:
        """Seconds to wait before the next leg; None when a person decides."""
        return self.args[1]  # type: ignore[no-any-return]  # args is tuple[Any, ...]
