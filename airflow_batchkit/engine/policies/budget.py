"""How many records may be given up before the run fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value

ERROR_CLASSES = ("record", "size", "usage", "permanent", "transient", "pushback")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What an error budget is asked about: the records of one budget period.

    :param read: records read.
    :param dead_lettered: records given up.
    :param classes: of these, how many by error class.
    """

    read: int
    dead_lettered: int
    classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Limit:
    """One limit, with what is spent of it.

    :param spent: how much.
    :param allowed: how much of it may be.
    :param text: says both, for people.
    """

    spent: int
    allowed: float
    text: str


@dataclass(frozen=True, kw_only=True, repr=False)
class ErrorBudget(Value):
    """Counted per record over the whole run, including its earlier tries; asked at the end of each window.

    With the defaults the first dead letter fails the run. ``max_dead_letters=10`` lets ten pass; the eleventh
    fails the run. Every limit that is given must hold.

    :param max_dead_letters: this many dead letters are allowed. Default 0, unless another limit is given.
    :param max_fraction: dead letters as a part of the records read, above 0, at most 1. Default: not asked.
    :param min_sample: ``max_fraction`` is asked only once this many records were read. Default 1,000.
    :param max_per_class: dead letters allowed by error class, as ``docs/errors.md`` names them:
        ``{"record": 100, "size": 0}``. A class that is not named has only the other limits; where none of
        these is given, none of it is allowed. Default: not asked.
    """

    max_dead_letters: int | None = None
    max_fraction: float | None = None
    min_sample: int = 1000
    max_per_class: Mapping[str, int] | None = field(default=None, hash=False)

    @override
    def check(self) -> None:
        """Refuse numbers outside their range, and classes that there are not.

        :raises UsageError: which number, and its range; which class, and those that there are.
        """
        if self.max_dead_letters is not None and not _is_count(self.max_dead_letters):
            message = f"ErrorBudget(max_dead_letters={self.max_dead_letters!r}): must be 0 or more"
            raise UsageError(message)
        if self.max_fraction is not None and not 0 < self.max_fraction <= 1:
            message = f"ErrorBudget(max_fraction={self.max_fraction}): must be above 0 and at most 1"
            raise UsageError(message)
        if not _is_count(self.min_sample) or self.min_sample < 1:
            message = f"ErrorBudget(min_sample={self.min_sample!r}): must be 1 or more"
            raise UsageError(message)
        for name, allowed in (self.max_per_class or {}).items():
            if name not in ERROR_CLASSES:
                known = ", ".join(ERROR_CLASSES)
                message = f"ErrorBudget(max_per_class=…): there is no error class {name!r}, only {known}"
                raise UsageError(message)
            if not _is_count(allowed):
                message = f"ErrorBudget(max_per_class={{{name!r}: {allowed!r}}}): must be 0 or more"
                raise UsageError(message)

    @property
    def allows_any(self) -> bool:
        """Whether a single dead letter can pass at all (then there must be a place to keep it)."""
        if self.max_dead_letters or self.max_fraction is not None:
            return True
        return self.max_dead_letters is None and any((self.max_per_class or {}).values())

    def used(self, spent: Spent) -> float:
        """Return which part of the budget is used up, 1.0 where a limit is just kept."""
        return max((limit.spent / limit.allowed for limit in self._limits(spent) if limit.allowed), default=0)

    def exceeded(self, spent: Spent) -> str | None:
        """Say which limit is exceeded, None while the run may go on."""
        return next((limit.text for limit in self._limits(spent) if limit.spent > limit.allowed), None)

    def _limits(self, spent: Spent) -> Iterator[_Limit]:
        given_up, named = spent.dead_lettered, self.max_per_class or {}
        if self.max_dead_letters is not None:
            yield _limit(given_up, self.max_dead_letters, "dead letters", "max_dead_letters")
        for name, allowed in named.items():
            given_up_so = spent.classes.get(name, 0)
            yield _limit(given_up_so, allowed, f"dead letters of class {name}", "max_per_class")
        if self.max_fraction is not None and spent.read >= self.min_sample:
            yield _Limit(
                given_up,
                self.max_fraction * spent.read,
                f"{given_up:,} of {spent.read:,} records ({given_up / spent.read:.2%}), "
                f"{self.max_fraction:.2%} allowed (max_fraction)",
            )
        if self.max_dead_letters is None and self.max_fraction is None:
            others = given_up - sum(spent.classes.get(name, 0) for name in named)
            what = "dead letters of other classes" if named else "dead letters"
            yield _limit(others, 0, what, "max_per_class" if named else "max_dead_letters")


def _is_count(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0


def _limit(spent: int, allowed: int, what: str, setting: str) -> _Limit:
    return _Limit(spent, allowed, f"{spent:,} {what}, {allowed:,} allowed ({setting})")
