"""What is to be done: source, transform, sink and the policies, in one value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias

from typing_extensions import override

from airflow_batchkit.engine.dead_letters import DeadLetterPlace
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, ErrorBudget, RateLimit, Timeouts
from airflow_batchkit.engine.sink import Sink
from airflow_batchkit.engine.source import Source
from airflow_batchkit.engine.values import Value

Transformed: TypeAlias = Mapping[str, Any] | Iterable[Mapping[str, Any]] | None
Transform: TypeAlias = Callable[..., Transformed]
"""``transform(document)`` or ``transform(document, record)``; see the module ``transform``."""

MAX_READERS = 8


@dataclass(frozen=True, kw_only=True, repr=False)
class Job(Value):
    """Everything that decides what a run does.

    :param name: the job in all its runs (``dag_id.task_id``); names the owner of the target.
    :param source: where records come from.
    :param sink: where they go.
    :param transform: called with each document; None keeps the records' bytes as they are.
    :param batch: how large a batch may become.
    :param throttle: how fast to go. Default: no limit.
    :param error_budget: how many records may be given up. Default: none.
    :param dead_letters: where they are kept; needed as soon as the budget allows any.
    :param batch_retry: how often one batch is tried.
    :param timeouts: limits for everything that could wait.
    :param readers: partitions read at the same time, 1 to 8. Default 2.
    :param local: LOCAL mode: reads, transforms, writes nothing.
    :param start_at: begin here instead of at the beginning: a cursor or a date, as the source understands it.
    :param max_batches: end after this many batches.
    """

    name: str
    source: Source
    sink: Sink
    transform: Transform | None = None
    batch: BatchPolicy = field(default_factory=BatchPolicy)
    throttle: RateLimit | None = None
    error_budget: ErrorBudget = field(default_factory=ErrorBudget)
    dead_letters: DeadLetterPlace | None = None
    batch_retry: BatchRetry = field(default_factory=BatchRetry)
    timeouts: Timeouts = field(default_factory=Timeouts)
    readers: int = 2
    local: bool = False
    start_at: str | None = None
    max_batches: int | None = None

    @override
    def check(self) -> None:
        """Refuse settings that contradict each other.

        :raises UsageError: what contradicts what, and how to mend it.
        """
        for name, kind in (("batch", BatchPolicy), ("batch_retry", BatchRetry), ("timeouts", Timeouts)):
            if not isinstance(getattr(self, name), kind):
                raise UsageError(f"{name}={getattr(self, name)!r}: must be a {kind.__name__}(…)")
        if self.error_budget.allows_any and self.dead_letters is None:
            raise UsageError(
                "the error budget lets records be given up, but there is no place to keep them: "
                "set dead_letters=DeadLetters(url), or an ErrorBudget() that allows none"
            )
        if not 1 <= self.readers <= MAX_READERS:
            raise UsageError(f"readers={self.readers}: must be 1 to {MAX_READERS}")
        if self.max_batches is not None and self.max_batches < 1:
            raise UsageError(f"max_batches={self.max_batches}: must be 1 or more")

    @property
    def mode(self) -> str:
        """``local``, ``partial`` (a part of the source) or ``real``; each keeps its own checkpoints."""
        if self.local:
            return "local"
        return "partial" if self.start_at is not None or self.max_batches is not None else "real"


@dataclass(frozen=True, kw_only=True, repr=False)
class RunIdentity(Value):
    """Which run this leg belongs to, and what to do with progress that is already there.

    :param run: the run, safe in object keys (``[A-Za-z0-9._-]``).
    :param clear_marker: differs once a person cleared the task; equal in all retries.
    :param when_cleared: ``"resume"`` or ``"restart"``: what a clear of an unfinished run means.
    :param restart: begin anew whatever another run, or this run before a clear, left. A retry still resumes.
    :param max_checkpoint_age: an older checkpoint is refused. Default 7 days.
    :param origin: where the run comes from, in its scheduler's words, for the dead letters.
    :param holder: who sees to it that the run has one leg at a time (``"Airflow"``). Default: nobody else
        could start one.
    :param nameless: the run's name was made up: whoever does the same work may go on with it.
    """

    run: str
    clear_marker: str = ""
    when_cleared: str = "resume"
    restart: bool = False
    max_checkpoint_age: timedelta = timedelta(days=7)
    origin: Mapping[str, str | int] = field(default_factory=dict)
    holder: str = ""
    nameless: bool = False

    @override
    def check(self) -> None:
        """Refuse unknown words.

        :raises UsageError: ``when_cleared`` is neither word.
        """
        if self.when_cleared not in {"resume", "restart"}:
            raise UsageError(f"when_cleared={self.when_cleared!r}: must be 'resume' or 'restart'")
