"""Charges the error budget with what was given up, whenever a window is committed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_batchkit.engine.exceptions import ErrorBudgetExceededError
from airflow_batchkit.engine.progress_log import one_line

if TYPE_CHECKING:
    from airflow_batchkit.engine.checkpoint import Checkpoint
    from airflow_batchkit.engine.dead_letters import DeadLetter, OpenDeadLetters
    from airflow_batchkit.engine.surroundings import Surroundings

_WARNINGS = (0.5, 0.8)
_REASONS = 3
HOW_TO_GO_ON = "a clear of the task opens a new budget period"


class Charging:
    """The error budget of one leg.

    :param around: the leg's surroundings.
    :param checkpoint: holds the counts, and the budget's period.
    :param place: where dead letters are kept, None where there is no place.
    """

    def __init__(
        self, around: Surroundings, checkpoint: Checkpoint, *, place: OpenDeadLetters | None
    ) -> None:
        self._job = around.job
        self._log = around.log
        self._teller = around.teller
        self._checkpoint = checkpoint
        self._place = place

    def take(self, letters: Sequence[DeadLetter]) -> None:
        """Tell of dead letters of one batch, before its window is committed.

        :raises ErrorBudgetExceededError: nothing keeps them, so the cursor must not pass their records.
        """
        if not letters:
            return
        self._teller.tell(lambda listener: listener.on_dead_letters(letters))
        if self._place is None and not self._job.local:
            first = letters[0]
            raise ErrorBudgetExceededError(
                f"record {first.id!a} of {first.partition} cannot be processed "
                f"({one_line(first.error_type)}: {one_line(first.message)}), and there is no place for dead "
                "letters; mend it, or set dead_letters and an error budget"
            )

    def charge(self) -> None:
        """Compare what is committed with the budget; warn at 50 % and at 80 %, once per budget period.

        :raises ErrorBudgetExceededError: which limit, the most frequent errors, where the dead letters are.
        """
        if self._job.local:
            return
        spent = self._checkpoint.spent
        exceeded = self._job.error_budget.exceeded(spent)
        if exceeded is None:
            self._warn(self._job.error_budget.used(spent), spent.dead_lettered)
            return
        self._checkpoint.budget.exceeded = exceeded
        where = ""
        if self._place is not None and self._job.mode == "real":
            where = f"; {whereabouts(self._place, self._checkpoint)}"
        raise ErrorBudgetExceededError(f"{why_exceeded(self._checkpoint)}{where}; {HOW_TO_GO_ON}")

    def _warn(self, used: float, dead_lettered: int) -> None:
        reached = max((level for level in _WARNINGS if used >= level), default=0.0)
        if reached <= self._checkpoint.budget.warned:
            return
        self._checkpoint.budget.warned = reached
        self._log.warning(
            "%.0f%% of the error budget is used: %s dead letters", used * 100, f"{dead_lettered:,}"
        )
        self._teller.tell(lambda listener: listener.on_budget_warning(used, dead_lettered))


def whereabouts(place: OpenDeadLetters, checkpoint: Checkpoint) -> str:
    """Say where a run's dead letters are to be found, and by which command."""
    of_run = ["--job", checkpoint.job, "--run", checkpoint.run]
    command = ["batchkit", "dead-letters", "show", place.url, *of_run]
    return f"the dead letters are at {place.url}; to see them: {shlex.join(command)}"


def why_exceeded(checkpoint: Checkpoint) -> str:
    """Say which limit of its error budget a run has exceeded, and by which errors above all."""
    samples = [*checkpoint.samples, *("" for _ in checkpoint.errors)]  # an old checkpoint has none
    reasons = [
        f"{one_line(name)} × {count:,}{f' (such as record {sample!a})' if sample else ''}"
        for (name, count), sample in zip(checkpoint.errors.items(), samples, strict=False)
    ]
    most_frequent = f"; most frequent: {', '.join(reasons[:_REASONS])}" if reasons else ""
    return f"error budget exceeded: {checkpoint.budget.exceeded}{most_frequent}"
