"""Bulk requests with a certain outcome: what was refused is sent again, and a lost answer does no harm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from airflow_batchkit.connectors.elasticsearch.errors import classify
from airflow_batchkit.connectors.patience import patiently
from airflow_batchkit.engine.exceptions import BatchTooLargeError, PermanentError, PushbackError, RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_batchkit.connectors.elasticsearch.rest import Rest
    from airflow_batchkit.engine.exceptions import BatchkitError

REQUEST_BYTES = 4 * 1024 * 1024
_DONE_BELOW = 300
_NOT_FOUND, _CONFLICT = 404, 409


@dataclass(frozen=True, slots=True)
class Action:
    """One action of a bulk request.

    :param id: of the document.
    :param source: the document to create; None: delete it.
    """

    id: str
    source: bytes | None = None

    @property
    def lines(self) -> bytes:
        """The action as a bulk request has it."""
        verb = "delete" if self.source is None else "create"
        head = msgspec.json.encode({verb: {"_id": self.id}})
        return head + b"\n" if self.source is None else b"%b\n%b\n" % (head, self.source)


class _Result(msgspec.Struct):
    status: int
    error: msgspec.Raw = msgspec.Raw(b"null")


class _Answer(msgspec.Struct):
    items: list[dict[str, _Result]]


class Bulk:
    """Sends actions to one index.

    :param rest: the connections.
    :param index: its name.
    """

    def __init__(self, rest: Rest, index: str) -> None:
        self._rest = rest
        self._index = index
        self._about = f"index {index!r}"

    def send(self, actions: Iterable[Action]) -> int:
        """Carry out all actions; done on return, and safe to call again.

        A document that is there already counts as created where it is equal: the answer to an earlier request
        was lost.

        :returns: how many there were.
        :raises PushbackError: the server takes some of them only later.
        :raises PermanentError: the server refuses a document, or holds another one under its id.
        """
        count = 0
        for request in _requests(actions):
            count += len(request)
            self._send(request)
        return count

    def _send(self, request: Sequence[Action]) -> None:
        left = list(request)

        def once() -> None:
            nonlocal left
            refused, left = left, []
            try:
                left = self._refused(refused)
            except BaseException:
                left = refused
                raise
            if left:
                raise PushbackError(f"{self._about}: {len(left):,} documents were refused for now (429)")

        try:
            patiently(once)
        except BatchTooLargeError:
            if len(left) == 1:
                raise
            middle = len(left) // 2
            self._send(left[:middle])
            self._send(left[middle:])

    def _refused(self, actions: Sequence[Action]) -> list[Action]:
        """Send actions once; return those that may work later."""
        answer = self._rest.call(
            "POST",
            f"/{quote(self._index, safe='')}/_bulk",
            b"".join(action.lines for action in actions),
            about=self._about,
        )
        items = msgspec.json.decode(answer.body, type=_Answer).items
        later: list[Action] = []
        unsure: list[Action] = []
        for action, item in zip(actions, items, strict=True):
            (result,) = item.values()
            if result.status < _DONE_BELOW or (result.status == _NOT_FOUND and action.source is None):
                continue
            if result.status == _CONFLICT and action.source is not None:
                unsure.append(action)
                continue
            error = self._error(action, result)
            if not isinstance(error, PushbackError):
                raise error
            later.append(action)
        self._compare(unsure)
        return later

    def _error(self, action: Action, result: _Result) -> BatchkitError:
        answer = b'{"error":%b}' % bytes(result.error)
        error = classify(result.status, answer, about=f"{self._about}, document {action.id!a}")
        return PermanentError(str(error)) if isinstance(error, RecordError) else error

    def _compare(self, unsure: Sequence[Action]) -> None:
        """Look whether documents that are there already are equal to those that were to be created."""
        if not unsure:
            return
        answer = self._rest.call(
            "POST",
            f"/{quote(self._index, safe='')}/_mget",
            {"ids": [action.id for action in unsure]},
            about=self._about,
        )
        found: Sequence[Mapping[str, Any]] = msgspec.json.decode(answer.body)["docs"]
        for action, document in zip(unsure, found, strict=True):
            if document.get("_source") != msgspec.json.decode(action.source or b"null"):
                raise PermanentError(
                    f"{self._about} holds another document under the id {action.id!a}: choose another index, "
                    "or remove it"
                )


def _requests(actions: Iterable[Action]) -> Iterator[list[Action]]:
    request: list[Action] = []
    nbytes = 0
    for action in actions:
        request.append(action)
        nbytes += len(action.lines)
        if nbytes >= REQUEST_BYTES:
            yield request
            request, nbytes = [], 0
    if request:
        yield request
