"""A frozen view of one shard, and the sequence number up to which it certainly shows every write."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from airflow_batchkit.connectors.elasticsearch.errors import ForbiddenError, IndexMissingError
from airflow_batchkit.connectors.elasticsearch.shards import decoded, same_shard, shard_states
from airflow_batchkit.engine.exceptions import BatchkitError, PermanentError, TransientError

if TYPE_CHECKING:
    import logging
    from datetime import timedelta

    from airflow_batchkit.connectors.elasticsearch.rest import Rest
    from airflow_batchkit.connectors.elasticsearch.shards import Shard

CLOSE_SECONDS = 2.0


class PointInTime:
    """An open point in time on one copy of one shard.

    :param rest: where to.
    :param shard: which shard.
    :param keep_alive: how long the server keeps it after each search.
    :param log: for what is done and what is missing.
    """

    def __init__(self, rest: Rest, shard: Shard, *, keep_alive: timedelta, log: logging.Logger) -> None:
        self._rest = rest
        self._shard = shard
        self._path = quote(shard.index.name, safe="")
        self._keep_alive = f"{int(keep_alive.total_seconds())}s"
        self._log = log
        self.average_bytes_on_disk = 0.0
        self.unrefreshed: ForbiddenError | None = None
        try:
            self.bound = self._refreshed_bound()
            self.id = self._open()
        except IndexMissingError as error:
            raise PermanentError(f"{shard.about}: the index was deleted while it was read") from error

    def search(self, body: Mapping[str, Any], *, max_bytes: int | None = None) -> bytes:
        """Search in the frozen view and return the answer as it came.

        :param body: the search without ``pit``.
        :param max_bytes: give up an answer that grows past this.
        :raises PointInTimeLostError: the server no longer has it.
        :raises AnswerTooLargeError: the answer is larger than ``max_bytes``.
        """
        try:
            return self._rest.call(
                "POST",
                "/_search?allow_partial_search_results=false",
                {**body, "pit": {"id": self.id, "keep_alive": self._keep_alive}},
                about=self._shard.about,
                max_bytes=max_bytes,
            ).body
        except IndexMissingError as error:
            raise PermanentError(f"{self._shard.about}: the index was deleted while it was read") from error

    def release(self) -> bool:
        """Let the server forget it; tell whether the server answered."""
        try:
            self._rest.call(
                "DELETE",
                "/_pit",
                {"id": self.id},
                about=self._shard.about,
                expect=(404,),
                seconds=CLOSE_SECONDS,
            )
        except BatchkitError as error:
            self._log.debug(
                "%s: its point in time stays open for %s: %s", self._shard.about, self._keep_alive, error
            )
            return False
        return True

    def _refreshed_bound(self) -> int:
        """Return the global checkpoint as it was *before* a refresh: what lies below it is visible after.

        -1 where there is none to rely on: the shard is then one window.
        """
        checkpoint = self._global_checkpoint()
        try:
            refresh(self._rest, self._path, about=self._shard.about)
        except ForbiddenError as error:
            self.unrefreshed = error
            return -1
        return checkpoint

    def _global_checkpoint(self) -> int:
        shard = self._shard
        if shard.history is None:
            return -1
        states = shard_states(self._rest, self._path, about=shard.about).get(shard.index.name, {})
        state = same_shard(shard, states.get(shard.number))
        self.average_bytes_on_disk = state.store_bytes / state.docs if state.docs else 0.0
        return state.global_checkpoint if shard.index.sequence_numbers else -1

    def _open(self) -> str:
        answer = self._rest.call(
            "POST",
            f"/{self._path}/_pit?keep_alive={self._keep_alive}&preference=_shards:{self._shard.number}",
            about=self._shard.about,
        )
        return decoded(answer.body, _Opened, self._shard.about).id


class PointsInTime:
    """The open points in time of a source; safe to use from several threads.

    :param rest: where to.
    :param keep_alive: how long the server keeps one after each search.
    :param log: for what is done and what is missing.
    """

    def __init__(self, rest: Rest, *, keep_alive: timedelta, log: logging.Logger) -> None:
        self._rest = rest
        self._keep_alive = keep_alive
        self._log = log
        self._lock = threading.Lock()
        self._open: list[PointInTime] = []
        self._told = False

    def open(self, shard: Shard) -> PointInTime:
        """Open one on a shard, after a refresh."""
        made = PointInTime(self._rest, shard, keep_alive=self._keep_alive, log=self._log)
        with self._lock:
            self._open.append(made)
            tell = made.unrefreshed is not None and not self._told
            self._told = self._told or tell
        if tell:
            self._log.warning(
                "what was indexed in the last moments may be missing and, unless the source has a sort, each "
                "shard is read as one window, because the connection may not refresh: %s", made.unrefreshed,
            )  # fmt: skip
        return made

    def close(self, point_in_time: PointInTime) -> None:
        """Close one, unless somebody else did."""
        with self._lock:
            mine = point_in_time in self._open
            if mine:
                self._open.remove(point_in_time)
        if mine:
            point_in_time.release()

    def close_all(self) -> None:
        """Close all, as long as the server answers."""
        with self._lock:
            left, self._open = self._open, []
        for point_in_time in left:
            if not point_in_time.release():
                break


def refresh(rest: Rest, path: str, *, about: str, parameters: str = "") -> None:
    """Make every write so far visible to searches.

    :param path: names of what to refresh, as part of a path.
    :param about: what to call it in messages.
    :param parameters: for the request's query string.
    :raises TransientError: a copy of a shard could not do it.
    :raises ForbiddenError: the ``maintenance`` privilege is missing.
    """
    answer = rest.call("POST", f"/{path}/_refresh?{parameters}", about=about)
    failed = decoded(answer.body, _Refreshed, about).shards.failed
    if failed:
        raise TransientError(f"{about}: the refresh failed on {failed} shard copies")


class _Opened(msgspec.Struct):
    id: str


class _Shards(msgspec.Struct):
    failed: int = 0


class _Refreshed(msgspec.Struct):
    shards: _Shards = msgspec.field(name="_shards")
