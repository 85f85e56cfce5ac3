"""Keys come back from a cursor as they were, and out of order they are noticed."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, strategies as st

from airflow_batchkit.connectors.encoding import UnreadableText
from airflow_batchkit.connectors.sql.keys import check_order, from_cursor, identity, to_cursor
from airflow_batchkit.connectors.sql.keyset import KeyColumn
from airflow_batchkit.engine.exceptions import OrderError, PermanentError, RecordError

VALUES = st.one_of(
    st.none(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.decimals(allow_nan=False),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.dates(),
)


@given(st.lists(VALUES, min_size=1).map(tuple))
def test_cursor_gives_back_the_very_same_key(key: tuple[Any, ...]) -> None:
    """Through a stored checkpoint, each value comes back equal, of the same type, with the same digits."""
    restored = from_cursor(msgspec.json.decode(msgspec.json.encode(to_cursor(key))))
    assert restored == key
    assert [type(value) for value in restored] == [type(value) for value in key]
    assert [str(value) for value in restored] == [str(value) for value in key]


def test_unknown_type_is_refused() -> None:
    """A key of a type that no cursor can keep fails the run instead of being kept inexactly."""
    with pytest.raises(PermanentError, match="type complex"):
        to_cursor((1j,))


@pytest.mark.parametrize("value", [True, [1], {"bytes": "AA==", "int": "1"}, {"color": "red"}])
def test_foreign_values_are_no_cursor(value: Any) -> None:
    """What was never written by a cursor is not taken for a key."""
    with pytest.raises(ValueError, match="no value of a key"):
        from_cursor([value])


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ((7,), "7"),
        (("7",), "7"),
        (('a "b" é',), 'a "b" é'),
        ((1.5,), "1.5"),
        ((b"\x00\xff",), "AP8="),
        ((Decimal("1.10"),), "1.10"),
        ((date(2026, 1, 2),), "2026-01-02"),
        ((7, "b"), '[7,"b"]'),
        ((7, None), "[7,null]"),
        (("7", "b"), '["7","b"]'),
        (("a,b", "c"), '["a,b","c"]'),
        (("a", "b,c"), '["a","b,c"]'),
        ((math.inf,), "inf"),
        ((-math.inf,), "-inf"),
        ((7, math.inf), '[7,{"float":"inf"}]'),
    ],
)
def test_identity_is_readable_and_unambiguous(key: tuple[Any, ...], text: str) -> None:
    """A single key is its value; keys of several columns can be told apart whatever they hold."""
    assert identity(key) == text


def test_a_key_that_cannot_be_read_has_no_identity() -> None:
    """Text that is not UTF-8 names no record."""
    with pytest.raises(RecordError, match="not UTF-8"):
        identity((7, UnreadableText(b"\xff")))


UP = (False,)


def columns(
    descending: tuple[bool, ...], nulls: Literal["none", "first", "last"] = "none"
) -> list[KeyColumn]:
    """Make a key's columns with these directions."""
    return [
        KeyColumn(expression="a", parameter=str, order="a", descending=down, nulls=nulls)
        for down in descending
    ]


@pytest.mark.parametrize(
    ("before", "key", "descending"),
    [
        (None, (1,), UP),
        ((1,), (2,), UP),
        ((1,), (1.5,), UP),
        ((2,), (1,), (True,)),
        ((-math.inf,), (0,), UP),
        ((Decimal("1.1"),), (Decimal("1.10000001"),), UP),
        (("b",), ("a",), UP),
        ((1,), ("a",), UP),
        ((datetime(2026, 1, 1, tzinfo=UTC),), (datetime(2026, 1, 2, tzinfo=UTC),), UP),
        ((datetime(2026, 1, 2, tzinfo=UTC),), (datetime(2026, 1, 1),), UP),  # noqa: DTZ001  # cannot be compared
        ((1, 9), (2, 1), (False, False)),
        ((1, 9), (1, 8), (False, True)),
        (("b", 9), ("a", 1), (False, False)),
    ],
    ids=repr,
)
def test_keys_in_order_pass(
    before: tuple[Any, ...] | None, key: tuple[Any, ...], descending: tuple[bool, ...]
) -> None:
    """The first column that differs decides; how text is ordered is the database's affair."""
    check_order(before, key, columns(descending))


@pytest.mark.parametrize(
    ("before", "key", "descending", "message"),
    [
        ((2,), (1,), UP, "goes backwards: 1 comes after 2"),
        ((1,), (2,), (True,), "goes backwards"),
        ((2,), (2,), UP, "2 comes twice"),
        ((2,), (2.0,), UP, "comes twice"),
        (("a",), ("a",), UP, "comes twice"),
        ((1, 9), (1, 8), (False, False), "goes backwards"),
        ((2, 1), (1, 9), (False, False), "goes backwards"),
        ((date(2026, 1, 2),), (date(2026, 1, 1),), UP, "goes backwards"),
        (
            (datetime(2026, 1, 2, tzinfo=UTC),),
            (datetime(2026, 1, 1, tzinfo=UTC),),
            UP,
            "goes backwards",
        ),
        (None, (None,), UP, "NULL"),
        ((1, 1), (1, None), (False, False), "NULL"),
    ],
)
def test_keys_out_of_order_fail_the_run(
    before: tuple[Any, ...] | None, key: tuple[Any, ...], descending: tuple[bool, ...], message: str
) -> None:
    """Rule 4: a key that comes twice, moves back or is NULL fails the run: its cursor cannot be trusted."""
    with pytest.raises(OrderError, match=message):
        check_order(before, key, columns(descending))


@pytest.mark.parametrize("nulls", ["first", "last"])
def test_nulls_move_to_their_side_only(nulls: Literal["first", "last"]) -> None:
    """A key column that may hold NULL has all of them on one side; one on the other fails the run."""
    forth, back = ((None, 1), (5, 1)), ((5, 1), (None, 1))
    good, bad = (forth, back) if nulls == "first" else (back, forth)
    order = columns((False, False), nulls)
    check_order(good[0], good[1], order)
    check_order((None, 1), (None, 2), order)
    with pytest.raises(OrderError, match="goes backwards"):
        check_order(bad[0], bad[1], order)
    with pytest.raises(OrderError, match="comes twice"):
        check_order((None, 1), (None, 1), order)


def test_key_too_long_for_a_checkpoint_fails_the_run() -> None:
    """The key is refused when it is read, not when the checkpoint that holds it is saved."""
    check_order(None, ("x" * 900,), columns(UP))
    with pytest.raises(PermanentError, match="choose another key"):
        check_order(None, ("é" * 600,), columns(UP))
