"""Rows that the server writes as JSON, with the key beside them as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
from typing_extensions import override

from airflow_batchkit.connectors.sql.dialect import Column, RowFormat

if TYPE_CHECKING:
    from airflow_batchkit.connectors.sql.keys import Key


class JsonRows(RowFormat):
    """Selects one JSON object per row, made by the server, and the key's values as text behind it.

    The server's ``row_to_json`` keeps every digit, writes instants as ISO 8601 and nests arrays and composite
    types; the driver's Python values would lose the infinities of dates, and the literals of ``json``.

    :param columns: of the records.
    :param key: the key's columns.
    :param qualified: writes a column so that it can mean nothing else.
    :param quote: writes a name.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        key: Sequence[Column],
        *,
        qualified: Callable[[Column], str],
        quote: Callable[[str], str],
    ) -> None:
        values = [_as_field(column, qualified(column)) for column in columns]
        keys = [f"{qualified(column)}::text" for column in key]
        self._selected = ", ".join([*values, *keys])
        # Inside, every column has a name of ours: no column's own name can mean something else there.
        inside = [f"c{number}" for number in range(len(values) + len(keys))]
        self._inside = ", ".join(inside)
        self._fields = ", ".join(
            f"{name} AS {quote(column.name)}" for name, column in zip(inside, columns, strict=False)
        )
        self._keys = ", ".join(inside[len(values) :])
        self._readers = tuple(_READERS.get(column.base, _as_it_is) for column in key)

    @property
    @override
    def selected(self) -> str:
        return self._selected

    @override
    def page(self, query: str) -> str:
        """Make the JSON around the limit: not for rows that are only read to be sorted away."""
        row = f"(SELECT row_to_json(r.*) FROM (SELECT {self._fields}) AS r)"  # noqa: S608  # names are quoted
        return f"SELECT {row}, {self._keys} FROM ({query}) AS page ({self._inside})"  # noqa: S608  # see above

    @override
    def key(self, row: Sequence[Any]) -> Key:
        return tuple(
            None if text is None else read(text) for read, text in zip(self._readers, row[1:], strict=True)
        )

    @override
    def body(self, row: Sequence[Any]) -> bytes:
        body: bytes = row[0]
        # Only a value of type json, kept as it was written, can hold an end of line.
        if b"\n" in body or b"\r" in body:
            return msgspec.json.format(body, indent=-1)
        return body

    @override
    def salvaged(self, row: Sequence[Any]) -> bytes:
        """Return the whole row: the server has made JSON of it already."""
        return self.body(row)


def as_parameter(value: Any) -> str:
    """Write a key's value as the text that the server reads back, whatever its type."""
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return value.isoformat() if isinstance(value, date) else str(value)


def _as_field(column: Column, expression: str) -> str:
    if column.base != "bytea":
        return expression
    # encode() breaks its lines.
    return rf"translate(encode({expression}, 'base64'), E'\n', '')"


def _as_it_is(text: str) -> str:
    return text


def _decimal(text: str) -> Decimal | str:
    number = Decimal(text)
    return number if number.is_finite() else text


def _float(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _instant(text: str) -> datetime | str:
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # infinity, before Christ, after the year 9999
        return text


def _day(text: str) -> date | str:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return text


# Numbers and instants, so that the reader can check that they move; everything else stays the server's text.
_READERS: dict[str, Callable[[str], Any]] = {
    "smallint": int,
    "integer": int,
    "bigint": int,
    "oid": int,
    "numeric": _decimal,
    "real": _float,
    "double precision": _float,
    "timestamp with time zone": _instant,
    "timestamp without time zone": _instant,
    "date": _day,
    "bytea": lambda text: bytes.fromhex(text[2:]),
}
