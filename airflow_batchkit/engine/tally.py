"""Which errors made the dead letters of a batch, counted until its window is committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from airflow_batchkit.engine.policies.budget import ERROR_CLASSES

if TYPE_CHECKING:
    from airflow_batchkit.engine.dead_letters import DeadLetter

_TYPE_BYTES = 60
_SAMPLE_BYTES = 40
_UNKNOWN_CLASS = "permanent"  # as every error that no table names


@dataclass(slots=True)
class Tally:
    """How often records were given up, and for what.

    :param types: by error type, cut where its name is long: a server may call its errors what it likes.
    :param classes: by error class.
    :param samples: the id of the first record of each error type, cut where it is long.
    """

    types: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    samples: dict[str, str] = field(default_factory=dict)

    def note(self, letters: Iterable[DeadLetter]) -> None:
        """Count some dead letters."""
        for letter in letters:
            name = _cut(letter.error_type, _TYPE_BYTES)
            self.types[name] += 1
            self.samples.setdefault(name, _cut(letter.id, _SAMPLE_BYTES))
            known = letter.error_class in ERROR_CLASSES
            self.classes[letter.error_class if known else _UNKNOWN_CLASS] += 1


def _cut(text: str, most: int) -> str:
    """Shorten a text so that it takes at most so many bytes of the checkpoint."""
    whole = text[: most + 1].encode(errors="backslashreplace").decode()  # half a surrogate pair has no bytes
    if _size(whole) <= most:
        return whole
    while _size(f"{whole}…") > most:
        whole = whole[:-1]
    return f"{whole}…"


def _size(text: str) -> int:
    return len(msgspec.json.encode(text)) - len('""')
