"""Which dead letters are meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.engine.dead_letters import DeadLetter

_STAGES = ("source", "transform", "sink")


@dataclass(frozen=True, kw_only=True, repr=False)
class LetterFilter(Value):
    """Chooses dead letters; a letter must fit everything that is given.

    :param error_types: exception classes or the server's error types, as the letters name them. Default: any.
    :param error_classes: ``record``, ``permanent``, … Default: any.
    :param stages: ``source``, ``transform``, ``sink``. Default: all.
    :param ids: ids of records. Default: any.
    :param since: given up last at this time or later; ISO 8601, UTC if no zone is given. Default: any time.
    :param until: given up last before this time. Default: any time.
    :param max_replays: a letter that was replayed so often is left alone. Default 10.
    """

    __templated__: ClassVar[tuple[str, ...]] = (
        "error_types",
        "error_classes",
        "stages",
        "ids",
        "since",
        "until",
    )

    error_types: Sequence[str] = ()
    error_classes: Sequence[str] = ()
    stages: Sequence[str] = ()
    ids: Sequence[str] = ()
    since: str | None = None
    until: str | None = None
    max_replays: int = 10

    @override
    def check(self) -> None:
        """Refuse what can match nothing.

        :raises UsageError: which field, and what it may hold.
        """
        for name in ("error_types", "error_classes", "stages", "ids"):
            if isinstance(getattr(self, name), str):
                raise UsageError(f"LetterFilter({name}={getattr(self, name)!r}): must be a list of texts")
        unknown = [stage for stage in self.stages if stage not in _STAGES]
        if unknown:
            raise UsageError(f"LetterFilter(stages={unknown!r}): must be of {', '.join(_STAGES)}")
        if self.max_replays < 1:
            raise UsageError(f"LetterFilter(max_replays={self.max_replays}): must be 1 or more")
        for name in ("since", "until"):
            _instant(name, getattr(self, name))

    def matches(self, letter: DeadLetter) -> bool:
        """Whether a letter is meant, however often it was replayed."""
        since, until = _instant("since", self.since), _instant("until", self.until)
        return (
            (not self.error_types or letter.error_type in self.error_types)
            and (not self.error_classes or letter.error_class in self.error_classes)
            and (not self.stages or letter.stage in self.stages)
            and (not self.ids or letter.id in self.ids)
            and (since is None or letter.at >= since)
            and (until is None or letter.at < until)
        )

    def replayable(self, letter: DeadLetter) -> bool:
        """Whether a letter is meant, and may be replayed once more.

        What the source could not read is no record yet: it has to be mended there, and exported again.
        """
        return letter.stage != "source" and letter.replays < self.max_replays and self.matches(letter)


def _instant(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"LetterFilter({name}={text!r}): write a time like 2026-11-22T03:00:00+00:00"
        ) from error
    return (instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)).timestamp()
