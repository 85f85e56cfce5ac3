"""Bulk requests: what is done is not done again, what is refused is named, and other documents stay."""

from __future__ import annotations

import json
import logging
import secrets
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from airflow_batchkit.connectors.elasticsearch.bulk import Action, Bulk
from airflow_batchkit.connectors.elasticsearch.rest import Answer, Rest
from airflow_batchkit.engine.exceptions import BatchTooLargeError, PermanentError
from airflow_batchkit.engine.policies import Timeouts
from tests.support.connections import ServerConnections

if TYPE_CHECKING:
    from tests.support.elasticsearch import ElasticsearchEndpoint


@pytest.mark.elasticsearch
def test_a_lost_answer_does_no_harm(elasticsearch_server: ElasticsearchEndpoint) -> None:
    """Sent again, equal documents count as created; another one under the id is refused, as is a bad one."""
    index = f"bulk-{secrets.token_hex(4)}"
    mapping = {"mappings": {"dynamic": "strict", "properties": {"n": {"type": "integer"}}}}
    elasticsearch_server.request("PUT", f"/{index}", mapping)
    client = ServerConnections(elasticsearch_url=elasticsearch_server.url).client(
        "elasticsearch", "es", timeouts=Timeouts()
    )
    with closing(Rest(client, timeouts=Timeouts(), log=logging.getLogger("bulk"))) as rest:
        bulk = Bulk(rest, index)
        actions = [Action(f"ü/{number}", b'{"n":%d}' % number) for number in range(3)]
        assert bulk.send(actions[:2]) == 2
        assert bulk.send(actions) == 3

        with pytest.raises(PermanentError, match="holds another document under the id"):
            bulk.send([Action("ü/1", b'{"n":7}')])
        with pytest.raises(PermanentError, match=rf"index '{index}', document 'bad'.*strict"):
            bulk.send([Action("bad", b'{"other":1}')])
        assert bulk.send([Action("ü/1"), Action("never there")]) == 2

    elasticsearch_server.request("POST", f"/{index}/_refresh")
    assert elasticsearch_server.request("GET", f"/{index}/_count")["count"] == 2
    elasticsearch_server.request("DELETE", f"/{index}")


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
