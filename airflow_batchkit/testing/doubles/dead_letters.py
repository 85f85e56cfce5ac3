"""A place for dead letters in memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_batchkit.engine.failpoints import effect
from airflow_batchkit.engine.values import Value
from airflow_batchkit.testing.doubles.parts import chain, counting
from airflow_batchkit.testing.script import Script

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_batchkit.engine.dead_letters import DeadLetter
    from airflow_batchkit.engine.sink import BatchKey, Inherited, Leg, Publication
    from airflow_batchkit.engine.source import OpenContext


class LetterBox:
    """What is kept from leg to leg.

    ``staged`` holds every batch's letters by (token, key); ``settled`` what counts, after the run;
    ``revealed`` what readers see of a run that failed. Calls in the script: ``"start"``, ``"put"``,
    ``"settle"``, ``"reveal"``.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.staged: dict[tuple[str, BatchKey], list[DeadLetter]] = {}
        self.inherited: dict[str, Inherited | None] = {}
        self.settled: list[DeadLetter] = []
        self.revealed: list[DeadLetter] = []
        self.settled_by: set[str] = set()


@dataclass(frozen=True, kw_only=True, repr=False)
class MemoryDeadLetters(Value):
    """Dead letters in memory.

    :param box: what is kept from leg to leg.
    """

    box: LetterBox = field(default_factory=LetterBox, repr=False)

    def open(self, context: OpenContext) -> _OpenMemoryDeadLetters:
        """Open the place; nothing can go wrong."""
        del context
        return _OpenMemoryDeadLetters(self.box)


class _OpenMemoryDeadLetters:
    def __init__(self, box: LetterBox) -> None:
        self._box = box
        self._closed = threading.Event()
        self._token = ""

    @property
    def url(self) -> str:
        return "memory://letters"

    def start(self, leg: Leg) -> None:
        with self._box.script.playing("start", self._closed), effect("dead_letters.start"):
            self._token = leg.token
            self._box.inherited[leg.token] = leg.inherited

    def put(self, key: BatchKey, letters: Sequence[DeadLetter]) -> None:
        with self._box.script.playing("put", self._closed), effect("dead_letters.put"):
            self._box.staged[self._token, key] = list(letters)

    def settle(self, publication: Publication) -> Mapping[str, Any]:
        with self._box.script.playing("settle", self._closed), effect("dead_letters.settle"):
            legs = chain(self._token, publication.frontier, self._box.inherited)
            tokens = {leg.token for leg in legs}
            # Settled by an earlier call that was killed before it could say so: what was staged is gone.
            if not tokens & self._box.settled_by:
                self._box.settled = self._counting(publication)
                self._box.settled_by = tokens
            self._box.revealed = []
        with effect("dead_letters.clean"):
            self._box.staged.clear()
        return {"place": "memory", "count": len(self._box.settled)}

    def reveal(self, publication: Publication) -> int:
        with self._box.script.playing("reveal", self._closed), effect("dead_letters.reveal"):
            self._box.revealed = self._counting(publication)
        return len(self._box.revealed)

    def close(self) -> None:
        self._closed.set()

    def _counting(self, publication: Publication) -> list[DeadLetter]:
        legs = chain(self._token, publication.frontier, self._box.inherited)
        return [letter for name in counting(self._box.staged, legs) for letter in self._box.staged[name]]
