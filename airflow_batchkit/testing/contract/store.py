"""What every checkpoint store must do."""
# ruff: noqa: S101  # assert is how pytest tests

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import pytest

from airflow_batchkit.engine.checkpoint import MAX_BYTES, Checkpoint, CheckpointStore, decode, encode

MakeStore: TypeAlias = Callable[[], CheckpointStore]

ODD_KEYS = (
    "orders.export",
    "orders.export.local",
    "orders.expor",
    "a b/c:d|e+%2F",
    "../up",
    "日次-エクスポート",
    "K" * 200,
)


class StoreContract:
    """Inherit it, and override the fixture :meth:`make_store`."""

    @pytest.fixture
    def make_store(self) -> MakeStore:
        """Return a function that makes, each time, another object on the same, at first empty place."""
        message = "override the fixture make_store"
        raise NotImplementedError(message)

    def test_empty_store_has_nothing(self, make_store: MakeStore) -> None:
        """A key that was never saved gives None, which means "begin at the beginning"."""
        assert make_store().load("orders.export") is None

    def test_saved_value_comes_back(self, make_store: MakeStore) -> None:
        """What one leg saved, the next leg loads with an object of its own, character for character."""
        stored = encode(Checkpoint(run="r-1 — día", token="0" * 16, generation="abcd1234", started_at=1.5))
        make_store().save("orders.export", stored)
        loaded = make_store().load("orders.export")
        assert loaded == stored, f"saved {stored!r}, loaded {loaded!r}"
        assert decode(loaded).run == "r-1 — día"

    def test_later_value_replaces_earlier(self, make_store: MakeStore) -> None:
        """A save replaces the whole value, also by a shorter one."""
        store = make_store()
        store.save("orders.export", "a long value, " * 100)
        store.save("orders.export", "short")
        assert store.load("orders.export") == "short"
        assert make_store().load("orders.export") == "short"

    def test_saving_again_is_harmless(self, make_store: MakeStore) -> None:
        """The same value saved twice, as after a lost answer, is there once."""
        store = make_store()
        store.save("orders.export", "value")
        store.save("orders.export", "value")
        assert make_store().load("orders.export") == "value"

    def test_largest_value_fits(self, make_store: MakeStore) -> None:
        """A value as large as a checkpoint may be, with quotes and line ends, is kept whole."""
        pattern = '"\\\n\t€'
        stored = pattern * (MAX_BYTES // len(pattern.encode()))
        make_store().save("orders.export", stored)
        assert make_store().load("orders.export") == stored

    def test_keys_do_not_touch_each_other(self, make_store: MakeStore) -> None:
        """Keys that are alike, or hold odd characters, are different keys: modes must not mix."""
        store = make_store()
        for key in ODD_KEYS:
            store.save(key, f"value of {key}")
        store.delete(ODD_KEYS[0])
        loaded = {key: make_store().load(key) for key in ODD_KEYS}
        assert loaded == {ODD_KEYS[0]: None} | {key: f"value of {key}" for key in ODD_KEYS[1:]}

    def test_deleted_value_is_gone(self, make_store: MakeStore) -> None:
        """After a delete the key is empty again, for every object on this place, and can be saved anew."""
        store = make_store()
        store.save("orders.export", "value")
        store.delete("orders.export")
        assert make_store().load("orders.export") is None
        store.save("orders.export", "another")
        assert make_store().load("orders.export") == "another"

    def test_deleting_nothing_is_harmless(self, make_store: MakeStore) -> None:
        """A delete of a key that has no value does nothing."""
        make_store().delete("orders.export")

    def test_description_is_one_line_without_credentials(self, make_store: MakeStore) -> None:
        """Messages name the place in one line that may be shown to anybody."""
        description = make_store().description
        assert description, "the description is empty"
        assert "\n" not in description
        assert not re.search(r"://[^/\s]*@", description), "the description holds credentials"
