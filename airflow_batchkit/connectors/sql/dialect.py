"""What differs from one database to the next: the seam behind which each of them is one class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from airflow_batchkit.engine.exceptions import BatchkitError


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table.

    :param name: as the table declares it.
    :param type: as the table declares it; may be empty.
    :param nullable: whether it may hold NULL.
    :param numeric: whether text that looks like a number is compared as a number in it.
    """

    name: str
    type: str
    nullable: bool
    numeric: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UniqueKey:
    """Columns that no two rows share.

    :param columns: in the key's order.
    :param collations: by column, how the key compares text, where the database says so.
    """

    columns: tuple[str, ...]
    collations: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What a database says about one table.

    :param database: identifies the database, without credentials (a file's path; host, port and name).
    :param columns: in the table's order.
    :param primary_key: None when there is none.
    :param unique_keys: all of them, the primary key included.
    """

    database: str
    columns: tuple[Column, ...]
    primary_key: UniqueKey | None
    unique_keys: tuple[UniqueKey, ...]


class Dialect(Protocol):
    """How one kind of database is spoken to through its DB-API driver."""

    @property
    def product(self) -> str:
        """Name and version, for the log."""
        ...

    @property
    def placeholder(self) -> str:
        """How a bound value is written in a query."""
        ...

    @property
    def errors(self) -> type[Exception]:
        """What the driver raises."""
        ...

    def quote(self, identifier: str) -> str:
        """Write a name so that it is nothing but a name."""
        ...

    def collated(self, expression: str, collation: str) -> str:
        """Write an expression that is compared by a certain collation."""
        ...

    def table(self, connection: Any, name: str) -> Table:
        """Look at a table.

        :raises UsageError: there is no such table.
        """
        ...

    def sorts(self, connection: Any, query: str, parameters: Sequence[Any]) -> bool:
        """Tell whether the database would sort all rows to answer a query, for want of an index."""
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
