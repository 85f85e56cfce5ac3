"""Records become JSON exactly, or not at all."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from airflow_batchkit.connectors.encoding import encode_record
from airflow_batchkit.engine.exceptions import RecordError


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


@pytest.mark.parametrize("value", [object(), "\ud800secret", 1j])
def test_what_json_cannot_hold_is_refused_without_quoting_it(value: Any) -> None:
    """Text that is not Unicode, and foreign types, are refused; the message does not show the value."""
    with pytest.raises(RecordError, match="cannot be written as JSON") as caught:
        encode_record({"value": value})
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
