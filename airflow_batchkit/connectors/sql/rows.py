"""Rows that the client encodes: the driver's values, field by field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.connectors.encoding import encode_record, salvage
from airflow_batchkit.connectors.sql.dialect import Column, RowFormat

if TYPE_CHECKING:
    from airflow_batchkit.connectors.sql.keys import Key


class EncodedRows(RowFormat):
    """Selects the columns as they are, and behind them those of the key that are not among them.

    :param columns: of the records.
    :param key: the key's columns.
    :param quote: writes a name.
    """

    def __init__(
        self, columns: Sequence[Column], key: Sequence[Column], *, quote: Callable[[str], str]
    ) -> None:
        self._names = tuple(column.name for column in columns)
        extra = tuple(column.name for column in key if column.name not in self._names)
        selected = (*self._names, *extra)
        self._positions = tuple(selected.index(column.name) for column in key)
        self._selected = ", ".join(quote(name) for name in selected)

    @property
    @override
    def selected(self) -> str:
        return self._selected

    @override
    def page(self, query: str) -> str:
        return query

    @override
    def key(self, row: Sequence[Any]) -> Key:
        return tuple(row[position] for position in self._positions)

    @override
    def body(self, row: Sequence[Any]) -> bytes:
        return encode_record(dict(zip(self._names, row, strict=False)))

    @override
    def salvaged(self, row: Sequence[Any]) -> bytes:
        return salvage(dict(zip(self._names, row, strict=False)))
