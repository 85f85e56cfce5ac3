"""The memory store keeps each version that was saved, and fails as told."""

from __future__ import annotations

import pytest

from airflow_batchkit.engine.checkpoint import Checkpoint, encode
from airflow_batchkit.engine.exceptions import TransientError
from airflow_batchkit.testing.doubles import MemoryStore


def test_every_version_is_kept() -> None:
    """What was saved earlier can be looked at, decoded, oldest first."""
    store = MemoryStore()
    for legs in (1, 2):
        checkpoint = Checkpoint(run="r", token="1" * 16, generation="0a0a0a0a", started_at=0.0, legs=legs)
        store.save("key", encode(checkpoint))
    store.save("other", "not a checkpoint of this key")
    assert [checkpoint.legs for checkpoint in store.checkpoints("key")] == [1, 2]
    current = store.checkpoint("key")
    assert current is not None
    assert current.legs == 2
    assert store.checkpoint("nothing") is None


def test_save_whose_answer_gets_lost_has_saved() -> None:
    """A store may fail after it has saved: the value is the new one."""
    store = MemoryStore()
    store.script.fail("save", TransientError("lost"), when="after")
    with pytest.raises(TransientError, match="lost"):
        store.save("key", "value")
    assert store.load("key") == "value"
