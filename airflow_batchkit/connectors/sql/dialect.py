"""What differs from one database to the next: the seam behind which each of them is one class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from airflow_batchkit.connectors.sql.keys import Key
    from airflow_batchkit.engine.exceptions import BatchkitError
    from airflow_batchkit.engine.policies import Timeouts
    from airflow_batchkit.engine.types import Total


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table.

    :param name: as the table declares it.
    :param type: as the table declares it; may be empty.
    :param nullable: whether it may hold NULL.
    :param numeric: whether a key's value in it has to be sent as a number: text would be compared as text.
    :param base: the type behind the declared one, as the database casts to it; empty where nothing is cast.
    :param exact: whether the client can tell by two values that the database takes them for equal.
    :param collation: by what text in it is ordered, with its version, where the database says so.
    """

    name: str
    type: str
    nullable: bool
    numeric: bool = False
    base: str = ""
    exact: bool = True
    collation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UniqueKey:
    """Columns that no two rows share.

    :param columns: in the key's order.
    :param collations: by column, how the key compares text where the query has to say it.
    :param nulls_distinct: whether two rows may share it after all where one of its columns is NULL.
    """

    columns: tuple[str, ...]
    collations: Mapping[str, str]
    nulls_distinct: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What a database says about one table.

    :param identity: what makes it this table and no other of the same name; no credentials.
    :param name: as it is written behind ``FROM``.
    :param columns: in the table's order.
    :param primary_key: None when there is none.
    :param unique_keys: all of them, the primary key included.
    :param enforces_keys: False for what has no indexes of its own (a view): the reader checks the key then.
    :param definition: what a view's rows are made by, in short; empty for a table.
    """

    identity: tuple[str, ...]
    name: str
    columns: tuple[Column, ...]
    primary_key: UniqueKey | None
    unique_keys: tuple[UniqueKey, ...]
    enforces_keys: bool = True
    definition: str = ""


class RowFormat(Protocol):
    """How rows come: what is selected, and what becomes of it."""

    @property
    def selected(self) -> str:
        """The list behind ``SELECT``."""
        ...

    def page(self, query: str) -> str:
        """Write the query for a page around the one that selects, orders and limits its rows."""
        ...

    def key(self, row: Sequence[Any]) -> Key:
        """Return the row's key."""
        ...

    def body(self, row: Sequence[Any]) -> bytes:
        """Return the row as one JSON object on one line.

        :raises RecordError: it has no exact form in JSON.
        """
        ...

    def salvaged(self, row: Sequence[Any]) -> bytes:
        """Return what there is of a row that :meth:`body` refuses, as one JSON object on one line."""
        ...


class Dialect(Protocol):
    """How one kind of database is spoken to through its DB-API driver; one object per connection."""

    @property
    def errors(self) -> type[Exception]:
        """What the driver raises."""
        ...

    @property
    def nulls_are_largest(self) -> bool:
        """Whether NULL comes last in an ascending order that does not say otherwise."""
        ...

    def prepare(self, connection: Any, *, job: str, timeouts: Timeouts) -> None:
        """Set a new connection up, once.

        :param job: for whom it reads, where the database shows that to its administrators.
        """
        ...

    def product(self, connection: Any) -> str:
        """Name and version, for the log."""
        ...

    def address(self, connection: Any) -> str:
        """Where the database is, as the command line's URLs have it; no credentials."""
        ...

    def table(self, connection: Any, name: str) -> Table:
        """Look at a table.

        :raises UsageError: there is no such table.
        """
        ...

    def still_there(self, connection: Any, table: Table) -> bool:
        """Tell whether the name of a table still leads to it; True where nothing could tell."""
        ...

    def compared(self, table: Table, column: Column, collation: str | None) -> str:
        """Write a column as it is compared and ordered.

        :param collation: as the unique key names it; None for the column's own.
        """
        ...

    def parameter(self, number: int, column: Column) -> str:
        """Write the place of a bound value, the how-many-th of its query, that is compared with a column."""
        ...

    def quote(self, identifier: str) -> str:
        """Write a name so that it is nothing but a name."""
        ...

    def row_format(self, table: Table, columns: Sequence[Column], key: Sequence[Column]) -> RowFormat:
        """Say how rows with these columns, and with this key, are read."""
        ...

    def stream(self, connection: Any, query: str, parameters: Sequence[Any]) -> AbstractContextManager[Any]:
        """Run a query; inside the ``with`` block its rows come one by one, never all at once."""
        ...

    def any_text(self, connection: Any) -> AbstractContextManager[None]:
        """Inside the ``with`` block, an ``UnreadableText`` stands for a text that cannot be decoded."""
        ...

    def sorts(self, connection: Any, query: str, parameters: Sequence[Any]) -> bool:
        """Tell whether the database would sort all rows to answer a query, for want of an index."""
        ...

    def total(self, connection: Any, *, count: str, matching: str, parameters: Sequence[Any]) -> Total:
        """Say how many rows a query finds: counted, or estimated where counting would strain the database.

        :param count: the query that counts them.
        :param matching: the query that finds them.
        """
        ...

    def limited(
        self, connection: Any, seconds: float, cancelled: Callable[[], bool]
    ) -> AbstractContextManager[None]:
        """Bound every query inside the ``with`` block.

        :param seconds: all of them together take no longer.
        :param cancelled: asked again and again while a query runs; True ends it.
        """
        ...

    def interrupt(self, connection: Any) -> None:
        """End the query that another thread runs, if there is one. Never raises."""
        ...

    def close(self, connection: Any) -> None:
        """Close the connection. Never raises."""
        ...

    def classify(self, error: Exception) -> BatchkitError:
        """Say in one line what the driver's error means, by what the caller can do about it."""
        ...
