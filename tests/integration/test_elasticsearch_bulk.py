"""Bulk requests: what is done is not done again, what is refused is named, and other documents stay."""

from __future__ import annotations

import json
import logging
import secrets
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

from airflow_batchkit.connectors.elasticsearch.bulk import Action, Bulk
from airflow_batchkit.connectors.elasticsearch.rest import Answer, Rest
from airflow_batchkit.engine.exceptions import BatchTooLargeError, PermanentError
from airflow_batchkit.engine.policies import Timeouts
from tests.support.connections import ServerConnections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.elasticsearch import ElasticsearchEndpoint


@dataclass(frozen=True)
class Index:
    """An index of a test's own, and bulk requests to it.

    :param server: an Elasticsearch.
    :param name: of the index.
    :param rest: the package's connections to it.
    """

    server: ElasticsearchEndpoint
    name: str
    rest: Rest

    @property
    def bulk(self) -> Bulk:
        """Bulk requests."""
        return Bulk(self.rest, self.name)

    @property
    def documents(self) -> dict[str, tuple[int, int]]:
        """Number and version of each document."""
        self.server.request("POST", f"/{self.name}/_refresh")
        hits = self.server.request("GET", f"/{self.name}/_search?version=true&size=100")["hits"]["hits"]
        return {hit["_id"]: (hit["_source"]["n"], hit["_version"]) for hit in hits}


@pytest.fixture
def index(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[Index]:
    """Give an empty index that takes numbers only."""
    name = f"bulk-{secrets.token_hex(4)}"
    mapping = {"mappings": {"dynamic": "strict", "properties": {"n": {"type": "integer"}}}}
    elasticsearch_server.request("PUT", f"/{name}", mapping)
    client = ServerConnections(elasticsearch_url=elasticsearch_server.url).client(
        "elasticsearch", "es", timeouts=Timeouts()
    )
    with closing(Rest(client, timeouts=Timeouts(), log=logging.getLogger("bulk"))) as rest:
        yield Index(elasticsearch_server, name, rest)
    elasticsearch_server.request("DELETE", f"/{name}")


def numbers(count: int) -> list[Action]:
    """Make actions that create documents."""
    return [Action(f"ü/{number}", b'{"n":%d}' % number) for number in range(count)]


@pytest.mark.elasticsearch
@pytest.mark.fault("answer-lost", at="elasticsearch")
def test_a_lost_answer_does_no_harm(index: Index) -> None:
    """Sent again, equal documents count as created; another one under the id is refused."""
    assert index.bulk.send(numbers(2)) == 2
    assert index.bulk.send(numbers(3)) == 3

    with pytest.raises(PermanentError, match="holds another document under the id"):
        index.bulk.send([Action("ü/1", b'{"n":7}')])
    assert index.documents == {f"ü/{number}": (number, 1) for number in range(3)}
    assert index.bulk.send([Action("ü/1"), Action("never there")]) == 2
    assert index.documents == {"ü/0": (0, 1), "ü/2": (2, 1)}


@pytest.mark.elasticsearch
@pytest.mark.fault("partial-bulk", at="elasticsearch")
def test_a_document_that_is_refused_is_named(index: Index) -> None:
    """One that does not fit among others that do: it is named, and the others are written once."""
    bad = Action("bad", b'{"other":1}')
    with pytest.raises(PermanentError, match=rf"index '{index.name}', document 'bad'.*strict"):
        index.bulk.send([*numbers(2), bad, *numbers(4)[2:]])

    assert index.bulk.send(numbers(4)) == 4
    assert index.documents == {f"ü/{number}": (number, 1) for number in range(4)}


@pytest.mark.elasticsearch
@pytest.mark.fault("partial-bulk", at="elasticsearch")
@pytest.mark.fault("pushback", at="elasticsearch")
def test_documents_that_are_refused_for_now_are_sent_again(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each document is refused with a 429 in an answer that says 200; later, all are written once."""
    answers: list[Answer] = []

    def block(*, until_reset: Literal[True] | None) -> None:
        settings = {"index.blocks.read_only_allow_delete": until_reset}
        index.server.request("PUT", f"/{index.name}/_settings", settings)

    def call(*how: Any, **settings: Any) -> Answer:
        answers.append(Rest.call(index.rest, *how, **settings))
        if len(answers) == 2:
            block(until_reset=None)
        return answers[-1]

    block(until_reset=True)
    monkeypatch.setattr(index.rest, "call", call)
    assert index.bulk.send(numbers(3)) == 3

    refused, again, written = (json.loads(answer.body)["items"] for answer in answers)
    assert [item["create"]["status"] for item in [*refused, *again]] == [429] * 6
    assert [item["create"]["status"] for item in written] == [201] * 3
    assert index.documents == {f"ü/{number}": (number, 1) for number in range(3)}


@dataclass
class Refusing:
    """Answers as a server does that takes some documents only later, and no request of more than ``most``."""

    later: dict[str, int] = field(default_factory=dict)
    most: int = 1_000
    requests: list[list[str]] = field(default_factory=list)

    def call(self, method: str, target: str, body: bytes, *, about: str) -> Answer:
        del method, target
        ids = [json.loads(line)["create"]["_id"] for line in body.splitlines()[::2]]
        self.requests.append(ids)
        if len(ids) > self.most:
            raise BatchTooLargeError(about)
        items: list[dict[str, Any]] = []
        for name in ids:
            left = self.later.get(name, 0)
            self.later[name] = left - 1
            error = {"error": {"type": "es_rejected_execution_exception", "reason": "full"}}
            items.append({"create": {"status": 429, **error} if left > 0 else {"status": 201}})
        return Answer(200, json.dumps({"errors": True, "items": items}).encode())


@pytest.mark.fault("partial-bulk", at="elasticsearch")
def test_only_what_was_refused_is_sent_again() -> None:
    """After a partial failure the documents that were taken are not sent a second time."""
    server = Refusing(later={"1": 2})

    assert Bulk(cast("Rest", server), "i").send([Action(str(n), b"{}") for n in range(3)]) == 3

    assert server.requests == [["0", "1", "2"], ["1"], ["1"]]


def test_a_request_that_is_too_large_is_cut() -> None:
    """A 413 halves the request; a single document that is too large is said to be so."""
    server = Refusing(most=2)
    assert Bulk(cast("Rest", server), "i").send([Action(str(n), b"{}") for n in range(4)]) == 4
    assert server.requests == [["0", "1", "2", "3"], ["0", "1"], ["2", "3"]]

    with pytest.raises(BatchTooLargeError):
        Bulk(cast("Rest", Refusing(most=0)), "i").send([Action("1", b"{}")])
