"""Removes dead letters for good."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from airflow_batchkit.connectors.letters.place import short_hash
from airflow_batchkit.engine.exceptions import PermanentError
from airflow_batchkit.engine.sink import Leg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_batchkit.connectors.letters.place import LetterSet, OpenLetters


def purge(place: OpenLetters, found: LetterSet, *, before: float | None) -> int:
    """Remove letters of one set, while no replay is at work there.

    :param before: those that were given up last before this time, in seconds since the epoch; None: all.
    :returns: how many were removed.
    :raises TargetHeldError: a replay is at work there.
    :raises PermanentError: a replay was cut off there: only it knows which letters it has done; or the run
        has failed and would settle its letters again.
    """
    token = secrets.token_hex(8)
    leg = Leg(
        job=found.job,
        run=f"purge-{token}",
        token=token,
        generation=found.generation,
        mode="real",
        partitions=(),
    )
    hold = place.hold(found, leg)
    hold.claim()
    try:
        if before is None:
            place.remove(found)
            return found.records
        return _remove_older(place, found, before=before, name=short_hash(token))
    finally:
        hold.release()


def _remove_older(place: OpenLetters, found: LetterSet, *, before: float, name: str) -> int:
    if not found.complete:
        raise PermanentError(
            f"the run whose letters are at {found.url} has failed: clear it, so that it goes on with them, "
            "or remove all of them"
        )
    if place.prepared(found):
        raise PermanentError(
            f"a replay of {found.url} was cut off: run it again first, so that the letters it has done are "
            "taken out"
        )
    removed = 0

    def staying() -> Iterator[bytes]:
        nonlocal removed
        for line in place.lines(found):
            if line.letter.at < before:
                removed += 1
            else:
                yield line.raw

    change = place.change(found, name=name)
    change.prepare(staying())
    if removed:
        change.apply()
    else:
        change.discard()
    return removed
