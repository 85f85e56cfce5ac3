"""How many records may be given up before the run fails."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value


@dataclass(frozen=True, kw_only=True, repr=False)
class ErrorBudget(Value):
    """Counted per record over the whole run, including its earlier tries; asked at the end of each window.

    With the defaults the first dead letter fails the run. ``max_dead_letters=10`` lets ten pass; the eleventh
    fails the run.

    :param max_dead_letters: this many dead letters are allowed. Default 0, unless ``max_fraction`` is given.
    :param max_fraction: dead letters as a part of the records read, above 0, at most 1. Default: not asked.
    :param min_sample: ``max_fraction`` is asked only once this many records were read. Default 1,000.
    """

    max_dead_letters: int | None = None
    max_fraction: float | None = None
    min_sample: int = 1000

    @override
    def check(self) -> None:
        """Refuse numbers outside their range.

        :raises UsageError: which number, and its range.
        """
        if self.max_dead_letters is not None and self.max_dead_letters < 0:
            message = f"ErrorBudget(max_dead_letters={self.max_dead_letters}): must be 0 or more"
            raise UsageError(message)
        if self.max_fraction is not None and not 0 < self.max_fraction <= 1:
            message = f"ErrorBudget(max_fraction={self.max_fraction}): must be above 0 and at most 1"
            raise UsageError(message)
        if self.min_sample < 1:
            message = f"ErrorBudget(min_sample={self.min_sample}): must be 1 or more"
            raise UsageError(message)

    @property
    def allows_any(self) -> bool:
        """Whether a single dead letter can pass at all (then there must be a place to keep it)."""
        return bool(self.max_dead_letters) or self.max_fraction is not None

    def used(self, *, dead_lettered: int, read: int) -> float:
        """Return which part of the budget is used up, 1.0 where a limit is just kept.

        :param dead_lettered: records given up in this budget period.
        :param read: records read in this budget period.
        """
        parts = [0.0]
        if self.max_dead_letters:
            parts.append(dead_lettered / self.max_dead_letters)
        if self.max_fraction is not None and read >= self.min_sample:
            parts.append(dead_lettered / (self.max_fraction * read))
        return max(parts)

    def exceeded(self, *, dead_lettered: int, read: int) -> str | None:
        """Say which limit is exceeded, None while the run may go on.

        :param dead_lettered: records given up in this budget period.
        :param read: records read in this budget period.
        """
        limit = self.max_dead_letters
        if limit is None and self.max_fraction is None:
            limit = 0
        if limit is not None and dead_lettered > limit:
            return f"{dead_lettered:,} dead letters, {limit:,} allowed (max_dead_letters)"
        if (
            self.max_fraction is not None
            and read >= self.min_sample
            and dead_lettered > self.max_fraction * read
        ):
            fraction = dead_lettered / read
            allowed = f"{self.max_fraction:.2%} allowed (max_fraction)"
            return f"{dead_lettered:,} of {read:,} records ({fraction:.2%}), {allowed}"
        return None
