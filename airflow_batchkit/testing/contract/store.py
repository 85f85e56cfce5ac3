"""What every checkpoint store must do."""
# ruff: noqa: S101  # assert is how pytest tests

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import pytest

from airflow_batchkit.engine.checkpoint import MAX_BYTES, Checkpoint, CheckpointStore, decode, encode
from airflow_batchkit.engine.exceptions import CannotResumeError, SupersededError

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

    def test_next_leg_goes_on(self, make_store: MakeStore) -> None:
        """Who has loaded what another object saved can replace it, again and again."""
        make_store().save("orders.export", "first leg")
        store = make_store()
        assert store.load("orders.export") == "first leg"
        store.save("orders.export", "second leg")
        store.save("orders.export", "second leg, later")
        assert make_store().load("orders.export") == "second leg, later"

    def test_load_asks_the_place_each_time(self, make_store: MakeStore) -> None:
        """Nothing is remembered: a leg sees at its next look that its value was removed."""
        store = make_store()
        store.save("orders.export", "value")
        assert store.load("orders.export") == "value"
        make_store().delete("orders.export")
        assert store.load("orders.export") is None

    @pytest.mark.parametrize("damaged", ["{", "[]", '"text"', "not JSON", "{}", "null"])
    def test_damaged_value_comes_back_to_be_refused(self, make_store: MakeStore, damaged: str) -> None:
        """What is no checkpoint is neither mended nor taken for nothing: a run must not begin anew by it."""
        make_store().save("orders.export", damaged)
        loaded = make_store().load("orders.export")
        assert loaded is not None
        with pytest.raises(CannotResumeError, match="restart the run"):
            decode(loaded)

    def test_deleting_nothing_is_harmless(self, make_store: MakeStore) -> None:
        """A delete of a key that has no value does nothing."""
        make_store().delete("orders.export")

    def test_description_is_one_line_without_credentials(self, make_store: MakeStore) -> None:
        """Messages name the place in one line that may be shown to anybody."""
        description = make_store().description
        assert description, "the description is empty"
        assert "\n" not in description
        assert not re.search(r"://[^/\s]*@", description), "the description holds credentials"


class ConditionalStoreContract(StoreContract):
    """For a store that saves by compare-and-set: of two legs at once, one is superseded."""

    def test_loser_of_two_saves_is_superseded(self, make_store: MakeStore) -> None:
        """Both loaded the same value; the second to save hears that it is no longer the current leg."""
        make_store().save("orders.export", "before")
        winner, loser = make_store(), make_store()
        winner.load("orders.export")
        loser.load("orders.export")
        winner.save("orders.export", "winner")
        with pytest.raises(SupersededError):
            loser.save("orders.export", "loser")
        assert make_store().load("orders.export") == "winner"
        winner.save("orders.export", "winner, later")
        assert make_store().load("orders.export") == "winner, later"

    def test_loser_of_two_first_saves_is_superseded(self, make_store: MakeStore) -> None:
        """Both found nothing; only one makes the first value."""
        winner, loser = make_store(), make_store()
        assert winner.load("orders.export") is None
        assert loser.load("orders.export") is None
        winner.save("orders.export", "winner")
        with pytest.raises(SupersededError):
            loser.save("orders.export", "loser")
        assert make_store().load("orders.export") == "winner"

    def test_removed_value_is_not_made_again(self, make_store: MakeStore) -> None:
        """A person removed it: the leg that goes on saving is superseded, not the person."""
        store = make_store()
        store.save("orders.export", "value")
        make_store().delete("orders.export")
        with pytest.raises(SupersededError):
            store.save("orders.export", "later value")
        assert make_store().load("orders.export") is None
