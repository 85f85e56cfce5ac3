"""Which staged batches count: the rule by which every sink and dead-letter place lists the parts of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_batchkit.engine.sink import BatchKey, Inherited

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from airflow_batchkit.engine.checkpoint import Frontier


def chain(token: str, frontier: Frontier, inherited: Mapping[str, Inherited | None]) -> list[Inherited]:
    """Return the legs of a run, oldest first, each with the line up to which its batches count.

    :param token: the current leg.
    :param frontier: what counts of the current leg's batches.
    :param inherited: by token, what that leg took over from the leg before it.
    """
    legs = [Inherited(token=token, frontier=frontier)]
    while (earlier := inherited.get(legs[-1].token)) is not None:
        legs.append(earlier)
    return legs[::-1]


def counting(
    staged: Collection[tuple[str, BatchKey]],
    legs: Sequence[Inherited],
) -> list[tuple[str, BatchKey]]:
    """Return the staged batches that count, by partition, then leg, then number.

    :param staged: every batch that was ever written, as (token, key).
    :param legs: what :func:`chain` returned.
    """
    names = list(staged)  # at once: a write of an earlier leg may still land while this goes on
    found = [
        (key.partition, position, key.number, leg.token, key)
        for position, leg in enumerate(legs)
        for staged_token, key in names
        if staged_token == leg.token and leg.frontier.covers(key.partition, key.number)
    ]
    return [(leg_token, key) for *_, leg_token, key in sorted(found, key=lambda entry: entry[:3])]
