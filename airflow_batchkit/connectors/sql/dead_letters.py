"""A SQL table as a place for dead letters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from airflow_batchkit.connectors.letters.row_dead_letters import OpenRowDeadLetters, open_rows
from airflow_batchkit.connectors.letters.row_sets import RowLetters
from airflow_batchkit.connectors.sql.letter_rows import TableRows
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.engine.source import OpenContext

_NAME = re.compile(r"[^\x00-\x1f]{1,57}")  # "_notes" must fit into PostgreSQL's 63 bytes as well


@dataclass(frozen=True, kw_only=True, repr=False)
class SqlDeadLetters(Value):
    """A table for dead letters, one row each, in PostgreSQL or SQLite; many jobs may share it.

    It is made, beside a small one for notes (``<table>_notes``), when the first run starts. Rows with
    ``status = 'settled'`` are copies for readers; ``record`` holds the record as text, byte for byte: protect
    the table like the data itself.

    :param conn_id: name of the connection.
    :param table: its name, in the schema that the connection finds first. Default ``batchkit_dead_letters``.
    """

    __templated__: ClassVar[tuple[str, ...]] = ("conn_id", "table")

    conn_id: str
    table: str = "batchkit_dead_letters"

    @override
    def check(self) -> None:
        """Refuse a name that no table can have.

        :raises UsageError: the name, and what it may be.
        """
        if not _NAME.fullmatch(self.table) or len(self.table.encode()) > 57:  # noqa: PLR2004  # see _NAME
            raise UsageError(f"SqlDeadLetters(table={self.table!r}): must be a name of up to 57 bytes")

    def open(self, context: OpenContext) -> OpenRowDeadLetters:
        """Connect and look; writes nothing.

        :raises UsageError: there is no such connection, its database is not supported, or something else
            bears the table's name.
        :raises TransientError: the database does not answer.
        """
        return open_rows(TableRows(context, self.conn_id, self.table))

    def open_letters(self, context: OpenContext) -> RowLetters:
        """Connect, to look at the letters that are kept there."""
        return RowLetters(TableRows(context, self.conn_id, self.table))
