"""The queries that one source sends, made once when it is opened."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from airflow_batchkit.connectors.sql.dialect import UniqueKey
from airflow_batchkit.connectors.sql.keys import Key, from_cursor
from airflow_batchkit.connectors.sql.keyset import KeyColumn, Keyset, Predicate
from airflow_batchkit.engine.exceptions import UsageError

if TYPE_CHECKING:
    from airflow_batchkit.connectors.sql.dialect import Column, Dialect, RowFormat, Table
    from airflow_batchkit.connectors.sql.source import SqlSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """What is read of a table, and in which order.

    :param columns: of the records.
    :param key: the key's columns.
    :param keyset: the key as it is compared.
    :param rows: what is selected, and what becomes of it.
    :param table: as it is written behind ``FROM``.
    :param where: the user's condition in brackets, None for the whole table.
    :param never_null: quoted columns of the key that are not declared NOT NULL, but must not hold it.
    :param overlapping: pages begin with the last row of the one before, to see whether its key comes twice.
    """

    columns: tuple[str, ...]
    key: tuple[Column, ...]
    keyset: Keyset
    rows: RowFormat
    table: str
    where: str | None
    never_null: tuple[str, ...]
    overlapping: bool

    def page(self, predicate: str | None, rows: int) -> str:
        """Write the query for one page."""
        condition = self._condition(predicate)
        return self.rows.page(
            f"SELECT {self.rows.selected} FROM {self.table}{condition} "  # noqa: S608  # names are quoted, values bound
            f"ORDER BY {self.keyset.order_by} LIMIT {rows:d}"
        )

    def stages_after(self, key: Key) -> list[Predicate]:
        """Return the stages of the page behind a key."""
        return self.keyset.starting_at(key) if self.overlapping else self.keyset.after(key)

    def count(self, predicate: str | None) -> str:
        """Write the query that counts what will be read."""
        return f"SELECT count(*) FROM {self.table}{self._condition(predicate)}"  # noqa: S608  # names are quoted

    def matching(self, predicate: str | None) -> str:
        """Write the query that finds what will be read, for a database that explains what it expects."""
        return f"SELECT 1 FROM {self.table}{self._condition(predicate)}"  # noqa: S608  # names are quoted

    def null_keys(self) -> str | None:
        """Write the query that finds a row with NULL in its key, None where there can be none."""
        if not self.never_null:
            return None
        nulls = " OR ".join(f"{column} IS NULL" for column in self.never_null)
        return f"{self.matching(f'({nulls})')} LIMIT 1"

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
        if None in key:
            raise UsageError(f"start_at={start_at!r}: a run cannot begin at NULL; leave start_at out")
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
    unique, key = _key(settings, table)
    placed = (*settings.descending, *settings.nulls_first, *settings.nulls_last)
    for name in (*columns, *key, *placed):
        if name not in by_name:
            raise UsageError(f"table {settings.table!r} has no column {name!r}; it has {', '.join(by_name)}")
    if stray := [name for name in placed if name not in key]:
        raise UsageError(
            f"SqlSource: descending, nulls_first, nulls_last: {stray} not in the key ({', '.join(key)})"
        )
    key_columns = tuple(by_name[name] for name in key)
    if not table.enforces_keys:
        _check_told_apart(settings, key_columns)
    distinct = unique.columns if unique.nulls_distinct else ()
    return Queries(
        columns=columns,
        key=key_columns,
        keyset=Keyset(
            columns=tuple(
                _key_column(
                    settings,
                    dialect,
                    column,
                    dialect.compared(table, column, unique.collations.get(column.name)),
                    may_be_null=column.nullable and column.name not in distinct,
                )
                for column in key_columns
            )
        ),
        rows=dialect.row_format(table, tuple(by_name[name] for name in columns), key_columns),
        table=table.name,
        where=None if settings.where is None else f"({settings.where})",
        never_null=tuple(dialect.quote(name) for name in distinct if by_name[name].nullable),
        overlapping=not table.enforces_keys,
    )


def _key(settings: SqlSource, table: Table) -> tuple[UniqueKey, tuple[str, ...]]:
    """Return what makes the key unique, and the key's columns."""
    key = tuple(settings.key)
    if not key:
        if table.primary_key is None:
            raise UsageError(
                f"table {settings.table!r} has no primary key; name a unique index's columns with key=(…)"
            )
        return table.primary_key, table.primary_key.columns
    if not table.enforces_keys:
        return UniqueKey(columns=key, collations={}, nulls_distinct=False), key
    # Columns are unique together where some of them are.
    unique = next((unique for unique in table.unique_keys if set(unique.columns) <= set(key)), None)
    if unique is None:
        raise UsageError(
            f"the columns {', '.join(key)} of table {settings.table!r} have no unique index: rows that share "
            "a key would be lost between two pages; add the primary key's columns to key=(…)"
        )
    return unique, key


def _key_column(
    settings: SqlSource, dialect: Dialect, column: Column, expression: str, *, may_be_null: bool
) -> KeyColumn:
    descending = column.name in settings.descending
    last = dialect.nulls_are_largest is not descending
    order = f"{expression} DESC" if descending else expression
    nulls: Literal["none", "first", "last"] = "none"
    if may_be_null:
        nulls = "last" if last else "first"
        if column.name in (settings.nulls_first if last else settings.nulls_last):
            nulls = "first" if last else "last"
            order += f" NULLS {nulls.upper()}"
    return KeyColumn(
        expression=expression,
        parameter=functools.partial(dialect.parameter, column=column),
        descending=descending,
        nulls=nulls,
        order=order,
    )


def _check_told_apart(settings: SqlSource, key: tuple[Column, ...]) -> None:
    """Where no index keeps a key unique, the client must be able to see that it comes twice."""
    for column in key:
        if not column.exact:
            raise UsageError(
                f"column {column.name!r} ({column.type}) of {settings.table!r} takes different texts for "
                "equal, and no index keeps the key unique; choose another key, or read the table behind it"
            )


def _of_column(value: Any, column: Column) -> Any:
    if not column.numeric or not isinstance(value, str):
        return value
    for read in (int, float):
        try:
            return read(value)
        except ValueError:
            continue
    raise UsageError(f"start_at: {value!r} is not a number, as column {column.name!r} ({column.type}) holds")
