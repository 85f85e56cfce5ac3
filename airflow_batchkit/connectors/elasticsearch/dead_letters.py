"""An Elasticsearch index as a place for dead letters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch.letter_rows import IndexRows
from airflow_batchkit.connectors.elasticsearch.rest import Rest
from airflow_batchkit.connectors.letters.row_dead_letters import OpenRowDeadLetters, open_rows
from airflow_batchkit.connectors.letters.row_sets import RowLetters
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.engine.source import OpenContext

_NAME = re.compile(r'(?![-_+.])[^A-Z\\/*?"<>| ,#:\x00-\x1f]{1,255}')


@dataclass(frozen=True, kw_only=True, repr=False)
class ElasticsearchDeadLetters(Value):
    """An index for dead letters, one document each; many jobs may share it.

    It is made when the first run starts. Documents with ``status: settled`` are copies for readers; the
    record itself is kept as text, byte for byte, and is not searched: protect the index like the data itself.

    :param index: its name. Default ``batchkit-dead-letters``.
    :param conn_id: connection to Elasticsearch. Default ``elasticsearch_default``.
    """

    __templated__: ClassVar[tuple[str, ...]] = ("index", "conn_id")

    index: str = "batchkit-dead-letters"
    conn_id: str = "elasticsearch_default"

    @override
    def check(self) -> None:
        """Refuse a name that no single index can have.

        :raises UsageError: the name, and what it may be.
        """
        if not _NAME.fullmatch(self.index):
            raise UsageError(
                f"ElasticsearchDeadLetters(index={self.index!r}): must name one index, in lower case"
            )

    def open(self, context: OpenContext) -> OpenRowDeadLetters:
        """Connect and look; writes nothing.

        :raises UsageError: something else bears the index's name, or a privilege is missing.
        :raises TransientError: the server does not answer.
        """
        return open_rows(self._rows(context))

    def open_letters(self, context: OpenContext) -> RowLetters:
        """Connect, to look at the letters that are kept there."""
        return RowLetters(self._rows(context))

    def _rows(self, context: OpenContext) -> IndexRows:
        client = context.connections.client("elasticsearch", self.conn_id, timeouts=context.timeouts)
        rest = Rest(client, timeouts=context.timeouts, log=context.log)
        return IndexRows(rest, self.index, conn_id=self.conn_id)
