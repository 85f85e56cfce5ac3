"""Names and identity of shards."""

from __future__ import annotations

import dataclasses
import re

import pytest

from airflow_batchkit.connectors.elasticsearch.shards import (
    Index,
    Shard,
    ShardState,
    decoded,
    fingerprint,
    same_shard,
)
from airflow_batchkit.engine.exceptions import PermanentError, TransientError

ORDERS = Index(name="orders", uuid="u", shards=2, max_result_window=10_000)
STATE = ShardState(uuid="u", history="h", global_checkpoint=5, docs=6, store_bytes=600)


def test_partitions_are_named_safely_and_apart() -> None:
    """Names fit object keys, sort by number, and differ where indices differ only in odd characters."""
    names = [
        Shard(Index(name, "u", shards, 1), number, "h").name
        for name, shards in (("orders", 1), ("a+b", 1), ("a b", 1), ("ü", 12))
        for number in range(shards)
    ]
    assert names[0] == "orders.0"
    assert names[3:5] == [f"{names[3][:-3]}.00", f"{names[3][:-3]}.01"]
    assert names[3:] == sorted(names[3:])
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)


def test_anything_that_makes_an_index_another_changes_its_fingerprint() -> None:
    """UUID, number of shards and each shard's history belong to the identity."""
    shards = [Shard(ORDERS, 0, "h0"), Shard(ORDERS, 1, "h1")]
    anew = dataclasses.replace(ORDERS, uuid="v")
    others = [
        [Shard(anew, 0, "h0"), Shard(anew, 1, "h1")],
        [Shard(ORDERS, 0, "h0"), Shard(ORDERS, 1, "restored")],
        shards[:1],
    ]
    assert fingerprint(shards) == fingerprint(list(shards))
    assert len({fingerprint(shards), *map(fingerprint, others)}) == 4


def test_another_shard_under_the_same_name_is_noticed() -> None:
    """A new UUID or history in the middle of a run ends it; a shard that is away may come back."""
    shard = Shard(ORDERS, 0, "h")
    assert same_shard(shard, STATE) is STATE
    with pytest.raises(TransientError):
        same_shard(shard, None)
    for state in (dataclasses.replace(STATE, uuid="v"), dataclasses.replace(STATE, history="i")):
        with pytest.raises(PermanentError, match="made anew"):
            same_shard(shard, state)


def test_answers_of_another_form_are_told_from_answers_that_are_cut_off() -> None:
    """Half an answer may be whole next time; another form will not change."""
    assert decoded(b'{"a":1}', dict[str, int], "x") == {"a": 1}
    with pytest.raises(TransientError, match="not whole JSON"):
        decoded(b'{"a":', dict[str, int], "x")
    with pytest.raises(PermanentError, match="unexpected form"):
        decoded(b'{"a":"b"}', dict[str, int], "x")
