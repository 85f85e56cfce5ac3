"""Places for dead letters as a person would look at them, past the package's own reading."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch import ElasticsearchDeadLetters
from airflow_batchkit.connectors.object_storage import DeadLetters
from airflow_batchkit.connectors.object_storage.verify.letters import verify_letters
from airflow_batchkit.connectors.sql import SqlDeadLetters
from tests.support.connections import ServerConnections
from tests.support.elasticsearch import ElasticsearchEndpoint

if TYPE_CHECKING:
    from airflow_batchkit.connectors.letters.place import ReplayablePlace
    from airflow_batchkit.connectors.object_storage.verify.verification import Verification
    from airflow_batchkit.engine.connections import Connections
    from tests.support.object_storage import Place

MOST = 10_000


class LetterBox(ABC):
    """A place for the dead letters of one job's one run, ``dag.export`` and ``run-1``."""

    @property
    @abstractmethod
    def place(self) -> ReplayablePlace:
        """What a job is given."""

    @property
    @abstractmethod
    def connections(self) -> Connections:
        """Connections that lead to it."""

    @abstractmethod
    def below(self, name: str) -> LetterBox:
        """Return another one, of the same kind."""

    @abstractmethod
    def letters(self) -> list[dict[str, Any]]:
        """Return what readers are to see, in order."""

    @abstractmethod
    def leftovers(self) -> list[str]:
        """Name what lies there that no reader and no next leg needs."""

    @abstractmethod
    def expire(self) -> None:
        """Let the lease of whoever holds the letters be over."""

    def verify(self, output: Verification) -> None:
        """Add to what was found wrong with the output what is wrong with its letters."""
        del output


@dataclass(frozen=True)
class ObjectBox(LetterBox):
    """A folder, or a prefix in a bucket.

    :param at: where.
    """

    at: Place

    @property
    @override
    def place(self) -> DeadLetters:
        return DeadLetters(self.at.url)

    @property
    @override
    def connections(self) -> Connections:
        return self.at.connections

    @override
    def below(self, name: str) -> ObjectBox:
        return ObjectBox(self.at.below(name))

    @override
    def letters(self) -> list[dict[str, Any]]:
        lines = (line for key in self._parts() for line in self.at.content(key).splitlines())
        return [json.loads(line) for line in lines]

    @override
    def leftovers(self) -> list[str]:
        names = set(self.at.names())
        unlisted = {name for name in names if "/letters-" in name and name.endswith(".ndjson")}
        staged = {name for name in names if "_batchkit/" in name and not name.endswith("owner.json")}
        prepared = {name for name in names if "letters.next" in name}
        return sorted((unlisted - set(self._parts())) | staged | prepared)

    @override
    def expire(self) -> None:
        key = "dag.export/_batchkit/owner.json"
        if key in self.at.names():
            store = self.at.store()
            store.put(key, _expired(self.at.content(key)))
            store.close()

    @override
    def verify(self, output: Verification) -> None:
        store = self.at.store()
        verify_letters(store, output, seconds=60.0, stop_asked=lambda: None)
        store.close()

    def _parts(self) -> list[str]:
        if "dag.export/run-1/letters.json" not in self.at.names():
            return []
        listed = json.loads(self.at.content("dag.export/run-1/letters.json"))
        return [f"dag.export/run-1/{part['key']}" for part in listed["parts"]]


@dataclass(frozen=True)
class Row:
    """One letter as a system keeps it.

    :param part: of the set.
    :param number: in the part.
    :param letter: what is said of the record.
    :param record: as text.
    """

    part: str
    number: str
    letter: Mapping[str, Any]
    record: str


class RowBox(LetterBox):
    """A table, or an index: rows, and notes that tell which of them count."""

    @abstractmethod
    def rows(self) -> Sequence[Row]:
        """Return all rows, in the order of their parts and numbers."""

    @abstractmethod
    def notes(self) -> Mapping[str, str]:
        """Return all notes."""

    @abstractmethod
    def replace_note(self, name: str, content: str) -> None:
        """Replace a note."""

    @override
    def letters(self) -> list[dict[str, Any]]:
        head = self._head()
        if head is None:
            return []
        shown = [row for row in self.rows() if row.part == head["part"]]
        assert len(shown) == head["records"], f"the head says {head['records']}"
        return [{**row.letter, "record": json.loads(row.record)} for row in shown]

    @override
    def leftovers(self) -> list[str]:
        head = self._head()
        shown = None if head is None else head["part"]
        unseen = {f"part {row.part}" for row in self.rows() if row.part != shown}
        return sorted(unseen) + [name for name in self.notes() if not name.startswith(("set/", "owner/"))]

    @override
    def expire(self) -> None:
        for name, content in self.notes().items():
            if name.startswith("owner/"):
                self.replace_note(name, _expired(content).decode())

    def _head(self) -> Any:
        return json.loads(self.notes().get("set/dag.export/run-1", "null"))


@dataclass(frozen=True)
class IndexBox(RowBox):
    """An index.

    :param server: an Elasticsearch.
    :param index: name.
    :param settings: how the job reaches it, where that is not the server's bare URL.
    """

    server: ElasticsearchEndpoint
    index: str
    settings: Mapping[str, Any] | None = None

    @property
    @override
    def place(self) -> ElasticsearchDeadLetters:
        return ElasticsearchDeadLetters(index=self.index)

    @property
    @override
    def connections(self) -> ServerConnections:
        return ServerConnections(elasticsearch_url=self.server.url, elasticsearch=self.settings or {})

    @override
    def below(self, name: str) -> IndexBox:
        return replace(self, index=f"{self.index}-{name}")

    @override
    def rows(self) -> Sequence[Row]:
        found = (hit["_source"] for hit in self._hits("letter"))
        rows = [Row(row["part"], row["number"], row["letter"], row["record"]) for row in found]
        return sorted(rows, key=lambda row: (row.part, row.number))

    @override
    def notes(self) -> Mapping[str, str]:
        return {hit["_source"]["note"]: hit["_source"]["content"] for hit in self._hits("note")}

    @override
    def replace_note(self, name: str, content: str) -> None:
        document = {"kind": "note", "note": name, "content": content}
        self.server.request("PUT", f"/{self.index}/_doc/{quote(name, safe='')}", document)

    def _hits(self, kind: str) -> list[dict[str, Any]]:
        self.server.request("POST", f"/{self.index}/_refresh")
        body = {"size": MOST, "query": {"term": {"kind": kind}}}
        hits: list[dict[str, Any]] = self.server.request("POST", f"/{self.index}/_search", body)["hits"][
            "hits"
        ]
        return hits


@dataclass(frozen=True)
class TableBox(RowBox):
    """A table of PostgreSQL.

    :param endpoint: of the database, as its connection takes it.
    :param table: name.
    :param user: as whom the job connects, where it is not the endpoint's own.
    """

    endpoint: Mapping[str, Any]
    table: str
    user: str = ""

    @property
    @override
    def place(self) -> SqlDeadLetters:
        return SqlDeadLetters(conn_id="sql", table=self.table)

    @property
    @override
    def connections(self) -> ServerConnections:
        return ServerConnections(postgres={**self.endpoint, **({"user": self.user} if self.user else {})})

    @override
    def below(self, name: str) -> TableBox:
        return replace(self, table=f"{self.table}-{name}")

    @override
    def rows(self) -> Sequence[Row]:
        query = f'SELECT part, number, letter, record FROM "{self.table}" ORDER BY part, number'  # noqa: S608  # a test's own name
        return [
            Row(part, number, json.loads(letter), record) for part, number, letter, record in self._run(query)
        ]

    @override
    def notes(self) -> Mapping[str, str]:
        return dict(self._run(f'SELECT name, content FROM "{self.table}_notes"'))  # noqa: S608  # likewise

    @override
    def replace_note(self, name: str, content: str) -> None:
        self._run(f'UPDATE "{self.table}_notes" SET content = %s WHERE name = %s RETURNING 1', content, name)  # noqa: S608  # likewise

    def _run(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        from airflow_batchkit.connectors.sql.postgres.endpoint import PostgresEndpoint, connect
        from airflow_batchkit.engine.policies import Timeouts

        with connect(PostgresEndpoint(**self.endpoint), Timeouts()) as connection:
            return connection.execute(query.encode(), values or None).fetchall()


def _expired(record: bytes | str) -> bytes:
    return json.dumps({**json.loads(record), "lease_until": 0.0}).encode()
