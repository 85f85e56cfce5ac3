"""The queries that one source sends, made once when it is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_batchkit.connectors.sql.keys import Key, from_cursor
from airflow_batchkit.connectors.sql.keyset import Keyset
from airflow_batchkit.engine.exceptions import UsageError

if TYPE_CHECKING:
    from airflow_batchkit.connectors.sql.dialect import Column, Dialect, Table
    from airflow_batchkit.connectors.sql.source import SqlSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """What is read of a table, and in which order.

    :param columns: of the records.
    :param key: the key's columns.
    :param extra: those columns of the key that the records do not have: read behind the others.
    :param keyset: the key as it is compared.
    :param selected: the quoted select list.
    :param table: the quoted table.
    :param where: the user's condition in brackets, None for the whole table.
    :param may_be_null: quoted columns of the key that are not declared NOT NULL.
    """

    columns: tuple[str, ...]
    key: tuple[Column, ...]
    extra: tuple[str, ...]
    keyset: Keyset
    selected: str
    table: str
    where: str | None
    may_be_null: tuple[str, ...]

    @property
    def key_positions(self) -> tuple[int, ...]:
        """Where a row holds the key's values."""
        names = (*self.columns, *self.extra)
        return tuple(names.index(column.name) for column in self.key)

    def page(self, predicate: str | None, rows: int) -> str:
        """Write the query for one page."""
        condition = self._condition(predicate)
        return (
            f"SELECT {self.selected} FROM {self.table}{condition} "  # noqa: S608  # names are quoted, values bound
            f"ORDER BY {self.keyset.order_by} LIMIT {rows:d}"
        )

    def count(self, predicate: str | None) -> str:
        """Write the query that counts what will be read."""
        return f"SELECT count(*) FROM {self.table}{self._condition(predicate)}"  # noqa: S608  # names are quoted

    def null_keys(self) -> str | None:
        """Write the query that finds a row with NULL in its key, None where there can be none."""
        if not self.may_be_null:
            return None
        nulls = " OR ".join(f"{column} IS NULL" for column in self.may_be_null)
        return f"SELECT 1 FROM {self.table}{self._condition(f'({nulls})')} LIMIT 1"  # noqa: S608  # names are quoted

    def starting_key(self, start_at: str) -> Key:
        """Read where a partial run begins: a value of the key's first column, or a JSON array of several.

        :raises UsageError: it is no value of the key.
        """
        names = ", ".join(column.name for column in self.key)
        values: Any = [start_at]
        try:
            if start_at.lstrip().startswith("["):
                values = msgspec.json.decode(start_at)
            key = from_cursor(values)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise UsageError(f"start_at={start_at!r}: not a JSON array of {names}: {error}") from error
        if not 1 <= len(key) <= len(self.key):
            raise UsageError(f"start_at={start_at!r}: give 1 to {len(self.key)} values, of {names}")
        return tuple(_of_column(value, column) for value, column in zip(key, self.key, strict=False))

    def _condition(self, predicate: str | None) -> str:
        conditions = [condition for condition in (self.where, predicate) if condition]
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def queries_for(settings: SqlSource, table: Table, dialect: Dialect) -> Queries:
    """Make the queries for a table.

    :raises UsageError: a column does not exist, or the key is not unique.
    """
    by_name = {column.name: column for column in table.columns}
    columns = tuple(settings.columns or by_name)
    key, collations = _key(settings, table)
    for name in (*columns, *key, *settings.descending):
        if name not in by_name:
            raise UsageError(f"table {settings.table!r} has no column {name!r}; it has {', '.join(by_name)}")
    if stray := [name for name in settings.descending if name not in key]:
        raise UsageError(f"SqlSource(descending={stray}): not in the key ({', '.join(key)})")
    extra = tuple(name for name in key if name not in columns)
    compared = tuple(
        dialect.collated(dialect.quote(name), collations[name]) if name in collations else dialect.quote(name)
        for name in key
    )
    return Queries(
        columns=columns,
        key=tuple(by_name[name] for name in key),
        extra=extra,
        keyset=Keyset(
            columns=compared,
            descending=tuple(name in settings.descending for name in key),
            placeholder=dialect.placeholder,
        ),
        selected=", ".join(dialect.quote(name) for name in (*columns, *extra)),
        table=dialect.quote(settings.table),
        where=None if settings.where is None else f"({settings.where})",
        may_be_null=tuple(dialect.quote(name) for name in key if by_name[name].nullable),
    )


def _key(settings: SqlSource, table: Table) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the key's columns, and the collations in which they are unique."""
    key = tuple(settings.key)
    if not key:
        if table.primary_key is None:
            raise UsageError(
                f"table {settings.table!r} has no primary key; name a unique index's columns with key=(…)"
            )
        return table.primary_key.columns, dict(table.primary_key.collations)
    # Columns are unique together where some of them are.
    unique = next((unique for unique in table.unique_keys if set(unique.columns) <= set(key)), None)
    if unique is None:
        raise UsageError(
            f"the columns {', '.join(key)} of table {settings.table!r} have no unique index: rows that share "
            "a key would be lost between two pages; add the primary key's columns to key=(…)"
        )
    return key, dict(unique.collations)


def _of_column(value: Any, column: Column) -> Any:
    if not column.numeric or not isinstance(value, str):
        return value
    for read in (int, float):
        try:
            return read(value)
        except ValueError:
            continue
    raise UsageError(f"start_at: {value!r} is not a number, as column {column.name!r} ({column.type}) holds")
