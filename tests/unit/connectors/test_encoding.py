"""Records become JSON exactly, or not at all."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from typing_extensions import override

from airflow_batchkit.connectors.encoding import UnreadableText, encode_record, salvage
from airflow_batchkit.engine.exceptions import RecordError


def endless() -> list[Any]:
    """Return a list that holds itself."""
    items: list[Any] = []
    items.append(items)
    return items


def nested(depth: int) -> Any:
    """Return null inside of so many lists."""
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


class Mute:
    """Cannot even be shown."""

    @override
    def __repr__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (12345678901234567890123, b"12345678901234567890123"),
        (-(2**63), b"-9223372036854775808"),
        (1.0, b"1.0"),
        (0.1, b"0.1"),
        (Decimal("1.10"), b"1.10"),
        (Decimal("12345678901234567890.123456789"), b"12345678901234567890.123456789"),
        (None, b"null"),
        (b"\x00\xff", b'"AP8="'),
        (datetime(2026, 1, 2, 3, 4, 5, 6000, tzinfo=UTC), b'"2026-01-02T03:04:05.006000Z"'),
        (date(2026, 1, 2), b'"2026-01-02"'),
        ('quote " slash \\ line\nend é 日', '"quote \\" slash \\\\ line\\nend é 日"'.encode()),
    ],
)
def test_values_keep_their_exact_form(value: Any, written: bytes) -> None:
    """Digits, text and instants are written so that nothing is lost or rounded."""
    assert encode_record({"value": value}) == b'{"value":' + written + b"}"


def test_fields_keep_their_order() -> None:
    """The columns come in the order of the table."""
    assert encode_record({"b": 1, "a": 2, "10": 3}) == b'{"b":1,"a":2,"10":3}'


def test_words_that_look_like_non_finite_numbers_are_text() -> None:
    """A null, and text that says NaN or Infinity, are no reason to refuse a record."""
    assert (
        encode_record({"a": None, "b": "NaN", "c": ["Infinity"]}) == b'{"a":null,"b":"NaN","c":["Infinity"]}'
    )


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("-inf"),
        Decimal("NaN"),
        Decimal("Infinity"),
        [1.0, float("inf")],
        {"deep": [{"er": Decimal("-Infinity")}]},
    ],
    ids=repr,
)
def test_numbers_that_json_lacks_are_refused(value: Any) -> None:
    """NaN and infinities are refused by name of their field: as null they would be lost silently."""
    with pytest.raises(RecordError, match="field 'amount' holds NaN or an infinity"):
        encode_record({"id": 1, "amount": value})


@pytest.mark.parametrize(
    "value",
    [object(), "\ud800secret", 1j, 10**5000, UnreadableText(b"secret\xff"), endless(), nested(400)],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_hold_is_refused_without_quoting_it(value: Any) -> None:
    """Text that is not Unicode, and foreign types, are refused; the message does not show the value."""
    with pytest.raises(RecordError, match=r"'value' cannot be|not UTF-8|nested too deeply") as caught:
        encode_record({"id": 1, "value": value})
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (UnreadableText(b"a\xff"), {"base64": "Yf8="}),
        ("a\ud800", {"base64": "Ye2ggA=="}),
        (float("-inf"), {"python": "-inf"}),
        ([1, Decimal("NaN")], {"python": "[1, Decimal('NaN')]"}),
        (-(16**5000), {"python": f"-0x1{'0' * 5000}"}),
        ({1j}, {"python": "{1j}"}),
        (Mute(), {"python": "<Mute without a text: ZeroDivisionError>"}),
        (endless(), {"python": "[[...]]"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_unreadable_is_kept_beside_the_rest(value: Any, kept: dict[str, str]) -> None:
    """Readable fields stay exactly what they are; of the others bytes, or Python's own text, are kept."""
    assert msgspec.json.decode(salvage({"id": 7, "value": value, "price": Decimal("1.10")}), type=dict) == {
        "readable": {"id": 7, "price": 1.1},
        "unreadable": {"value": kept},
    }
    assert b'{"readable":{"id":7,"price":1.10},' in salvage(
        {"id": 7, "value": value, "price": Decimal("1.10")}
    )


def test_field_names_that_are_no_text_are_kept_too() -> None:
    """Half a character in a name is written as its escape, another kind of name as its text."""
    kept = msgspec.json.decode(salvage({"a": 1, "b\ud800": 2, (1, 2): 3}))  # type: ignore[dict-item]  # on purpose
    assert kept == {
        "readable": {"a": 1},
        "unreadable": {"b\\ud800": {"python": "0x2"}, "(1, 2)": {"python": "0x3"}},
    }
