"""Removes dead letters for good."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from airflow_batchkit.connectors.object_storage.letters_files import short_hash
from airflow_batchkit.connectors.object_storage.letters_rewrite import (
    LetterRewrite,
    prepared_changes,
    remove_set,
)
from airflow_batchkit.connectors.object_storage.locations import segment
from airflow_batchkit.connectors.object_storage.ownership import Ownership
from airflow_batchkit.engine.exceptions import PermanentError
from airflow_batchkit.engine.sink import Leg

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.letters_files import LetterSet
    from airflow_batchkit.connectors.object_storage.store import ObjectStore


def purge(store: ObjectStore, found: LetterSet, *, before: float | None) -> int:
    """Remove letters of one set, while no replay is at work there.

    :param before: those that were given up last before this time, in seconds since the epoch; None: all.
    :returns: how many were removed.
    :raises TargetHeldError: a replay is at work there.
    :raises PermanentError: a replay was cut off there: only it knows which letters it has done.
    """
    token = secrets.token_hex(8)
    leg = Leg(
        job=found.head.job,
        run=f"purge-{token}",
        token=token,
        generation=found.head.generation,
        mode="real",
        partitions=(),
    )
    ownership = Ownership(store, leg, root=f"{segment(found.head.job)}/")
    ownership.claim()
    try:
        if before is None:
            remove_set(store, found)
            return found.records
        if prepared_changes(store, found.folder):
            raise PermanentError(
                f"a replay of {store.location.url}/{found.folder} was cut off: run it again first, "
                "so that the letters it has done are taken out"
            )
        rewrite = LetterRewrite(store, found, name=short_hash(token))
        removed = rewrite.prepare(lambda letter: letter.at < before)
        if removed:
            rewrite.apply()
        else:
            rewrite.discard()
        return removed
    finally:
        ownership.release()
