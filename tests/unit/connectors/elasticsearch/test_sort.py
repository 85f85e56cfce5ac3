"""What an order looks like, and which shard is read in which."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest

from airflow_batchkit.connectors.elasticsearch.shards import Index, Shard
from airflow_batchkit.connectors.elasticsearch.sort import normal, sort_for, warn_of_single_windows

PLAIN = Shard(Index("orders", "u", 1), 0, "h")
UNSEEN = dataclasses.replace(PLAIN, history=None)
UNNUMBERED = dataclasses.replace(PLAIN, index=dataclasses.replace(PLAIN.index, sequence_numbers=False))
TIME_SERIES = dataclasses.replace(PLAIN, index=dataclasses.replace(PLAIN.index, time_series=True))
OWN_ORDER = dataclasses.replace(UNNUMBERED, index=dataclasses.replace(UNNUMBERED.index, time_series=True))


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        (["at"], [{"at": "asc"}]),
        (["at:desc", "id"], [{"at": "desc"}, {"id": "asc"}]),
        ([{"at": {"order": "desc", "missing": "_first"}}], [{"at": {"order": "desc", "missing": "_first"}}]),
        ([], []),
    ],
)
def test_keys_are_written_as_in_the_clients(written: list[Any], taken: list[Any]) -> None:
    """A name, a name with a direction, or Elasticsearch's own form."""
    assert normal(written) == taken


@pytest.mark.parametrize(
    ("shard", "asked", "expected"),
    [
        (PLAIN, [], None),
        (PLAIN, ["at"], [{"at": "asc"}]),
        (UNNUMBERED, [], None),
        (UNNUMBERED, ["at"], [{"at": "asc"}]),
        (TIME_SERIES, [], None),
        (OWN_ORDER, [], [{"_tsid": "asc"}, {"@timestamp": "desc"}]),
        (OWN_ORDER, ["at"], [{"at": "asc"}]),
    ],
)
def test_sequence_numbers_come_first(shard: Shard, asked: list[Any], expected: list[Any] | None) -> None:
    """A shard is read by its numbers unless the user asks for an order, or a time series has only its own."""
    assert sort_for(shard, asked) == expected


@pytest.mark.parametrize(
    ("shards", "asked", "told"),
    [
        ([PLAIN, TIME_SERIES, OWN_ORDER], [], None),
        ([UNSEEN, UNSEEN], [], "2 shards, such as index 'orders' shard 0, may not be asked"),
        ([PLAIN, UNNUMBERED], [], "1 shards, such as index 'orders' shard 0, have no sequence numbers"),
        ([UNSEEN, UNNUMBERED], ["at"], None),
    ],
)
def test_what_cannot_be_cut_is_said_once(
    shards: list[Shard], asked: list[Any], told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says how many shards are one window each, why, and what helps; none where there are none."""
    warn_of_single_windows(shards, asked, logging.getLogger("test"))
    assert len(caplog.records) == (0 if told is None else 1)
    assert (told or "") in caplog.text
