"""The place for the letters of a replay that fail again: the one that they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from airflow_batchkit.connectors.letters.place import FailedAgain, OpenLetters, ReplayablePlace
from airflow_batchkit.engine.dead_letters import DeadLetter, OpenDeadLetters
from airflow_batchkit.engine.exceptions import BatchkitError
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.engine.sink import BatchKey, Leg, Publication
    from airflow_batchkit.engine.source import OpenContext


@dataclass(frozen=True, kw_only=True, repr=False)
class ReplayLetters(Value):
    """The dead letters of a replay. The replay's sink prepares the place, and changes the set at the end.

    :param place: where the letters come from.
    """

    __templated__: ClassVar[tuple[str, ...]] = ("place",)

    place: ReplayablePlace

    def open(self, context: OpenContext) -> OpenReplayLetters:
        """Connect and look; writes nothing.

        :raises UsageError: no such place.
        :raises TransientError: the place does not answer.
        """
        place = self.place.open_letters(context)
        try:
            place.check()
        except BatchkitError:
            place.close()
            raise
        return OpenReplayLetters(place)


class OpenReplayLetters(OpenDeadLetters):
    """An open :class:`ReplayLetters`."""

    def __init__(self, place: OpenLetters) -> None:
        self._place = place
        self._failed: FailedAgain | None = None

    @property
    @override
    def url(self) -> str:
        return self._place.url

    @override
    def start(self, leg: Leg) -> None:
        self._failed = self._place.failed_again(leg)

    @override
    def put(self, key: BatchKey, letters: Sequence[DeadLetter]) -> None:
        if self._failed is None:
            raise RuntimeError("start() comes before this call")
        self._failed.put(key, letters)

    @override
    def settle(self, publication: Publication) -> Mapping[str, Any]:
        """Say what failed again; the replay's sink counts it once more before it publishes."""
        return {"place": self._place.url, "count": publication.counts.get("dead_lettered", 0)}

    @override
    def reveal(self, publication: Publication) -> int:
        """Do nothing: until a replay is done, all its letters are where they were."""
        return publication.counts.get("dead_lettered", 0)

    @override
    def close(self) -> None:
        self._place.close()
