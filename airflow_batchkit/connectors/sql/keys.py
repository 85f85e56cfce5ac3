"""Keys as JSON, as ids, and in their order."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_batchkit.engine.exceptions import OrderError, PermanentError, RecordError

if TYPE_CHECKING:
    from airflow_batchkit.connectors.sql.keyset import KeyColumn

Key = tuple[Any, ...]

#: A longer cursor would not fit into a checkpoint with everything else.
MAX_CURSOR_BYTES = 1000
_SURELY_SHORT = 150
_INT64 = 2**63
_encode = msgspec.json.Encoder(decimal_format="number").encode

# Each value of a type that JSON lacks is kept as {name: text}. A datetime is a date too, so it comes first.
_TAGGED: tuple[tuple[str, type, Callable[[Any], str], Callable[[str], Any]], ...] = (
    ("bytes", bytes, lambda value: base64.b64encode(value).decode(), base64.b64decode),
    ("decimal", Decimal, str, Decimal),
    ("datetime", datetime, datetime.isoformat, datetime.fromisoformat),
    ("date", date, date.isoformat, date.fromisoformat),
    ("float", float, repr, float),
    ("int", int, str, int),
)
_READ = {name: read for name, _, _, read in _TAGGED}


def to_cursor(key: Key) -> list[Any]:
    """Write a key as JSON types, from which :func:`from_cursor` makes the very same values."""
    return [_to_json(value) for value in key]


def from_cursor(values: Sequence[Any]) -> Key:
    """Read a key back.

    :raises ValueError: this was never a key's cursor.
    """
    return tuple(_from_json(value) for value in values)


def identity(key: Key) -> str:
    """Write a key as a record's id: a single value as text, several as a JSON array (``[7,"b"]``).

    Bytes are base64, dates and times ISO 8601, numbers as JSON writes them; an infinity is ``inf`` or
    ``-inf``, among several ``{"float":"inf"}``.

    :raises RecordError: a value of it cannot be read.
    """
    if len(key) == 1 and isinstance(key[0], str):
        return key[0]
    try:
        text = _encode(key).decode()
    except TypeError:
        raise RecordError("is text that is not UTF-8") from None
    if "null" in text and any(map(_is_infinite, key)):
        # JSON has no infinity, and writes it as it writes NULL.
        if len(key) == 1:
            return repr(key[0])
        return msgspec.json.encode(to_cursor(key)).decode()
    return text if len(key) > 1 else text[1:-1].strip('"')


def check_order(before: Key | None, key: Key, columns: Sequence[KeyColumn]) -> None:
    """Check that a key comes after the one before it, as far as a client can tell.

    Numbers and instants must move in their direction, and NULLs come on their side. How text is ordered only
    the database knows; it must merely differ.

    :raises OrderError: a key comes twice, goes backwards, or holds NULL where the key cannot have any.
    :raises PermanentError: a key is too long for a cursor.
    """
    for value, column in zip(key, columns, strict=True):
        if value is None and column.nulls == "none":
            raise OrderError("a row has NULL in its key, so that nothing can be resumed after it")
        if isinstance(value, str | bytes) and len(value) > _SURELY_SHORT:
            _check_length(key)
    if before is None:
        return
    for earlier, later, column in zip(before, key, columns, strict=True):
        if earlier == later:
            continue
        if _goes_backwards(earlier, later, column):
            raise OrderError(f"the key goes backwards: {identity(key)} comes after {identity(before)}")
        return
    raise OrderError(f"the key {identity(key)} comes twice in a row")


def _goes_backwards(earlier: Any, later: Any, column: KeyColumn) -> bool:
    if earlier is None or later is None:
        return (earlier is None) is (column.nulls == "last")
    return _comparable(earlier, later) and (later < earlier) is not column.descending


def _check_length(key: Key) -> None:
    length = len(msgspec.json.encode(to_cursor(key)))
    if length > MAX_CURSOR_BYTES:
        raise PermanentError(
            f"a key is {length:,} bytes long, at most {MAX_CURSOR_BYTES:,} fit into a checkpoint; "
            "choose another key"
        )


def _is_infinite(value: object) -> bool:
    return isinstance(value, float) and math.isinf(value)


def _comparable(earlier: object, later: object) -> bool:
    numbers = int | float | Decimal
    if isinstance(earlier, numbers) and isinstance(later, numbers):
        return True
    if isinstance(earlier, datetime) and isinstance(later, datetime):
        return (earlier.tzinfo is None) == (later.tzinfo is None)
    return type(earlier) is type(later) is date


def _to_json(value: Any) -> Any:
    if value is None or isinstance(value, str) or (isinstance(value, int) and -_INT64 <= value < _INT64):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    for name, kind, write, _ in _TAGGED:
        if isinstance(value, kind):
            return {name: write(value)}
    raise PermanentError(f"a key column of type {type(value).__name__} cannot be kept in a cursor")


def _from_json(value: Any) -> Any:
    if value is None or (isinstance(value, str | float | int) and not isinstance(value, bool)):
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        ((written, text),) = value.items()
        if written in _READ:
            return _READ[written](text)
    raise ValueError(f"{value!r} is no value of a key")
