"""Where a replay keeps the letters that fail again, until their set is written anew."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from typing_extensions import override

from airflow_batchkit.connectors.object_storage.letters_files import STEM, short_hash
from airflow_batchkit.connectors.object_storage.locations import parse_location
from airflow_batchkit.connectors.object_storage.publish import require_whole_chain
from airflow_batchkit.connectors.object_storage.staging import Staging
from airflow_batchkit.connectors.object_storage.store import ObjectStore, open_store
from airflow_batchkit.engine.dead_letters import DeadLetter, OpenDeadLetters
from airflow_batchkit.engine.exceptions import BatchkitError
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.s3_settings import S3Settings
    from airflow_batchkit.engine.checkpoint import Frontier
    from airflow_batchkit.engine.sink import BatchKey, Leg, Publication
    from airflow_batchkit.engine.source import OpenContext

_encode_lines = msgspec.json.Encoder().encode_lines


def replay_run(leg: Leg) -> str:
    """Name a replay's run unlike the runs of the job whose letters it replays."""
    return f"replay-{short_hash(leg.job)}-{leg.run}"


class ReplayStaging:
    """The letters of one replay that failed again, seen from one of its legs.

    :param store: the place.
    :param leg: the leg of the replay.
    """

    def __init__(self, store: ObjectStore, leg: Leg) -> None:
        self._store = store
        self._staging = Staging(
            store,
            dataclasses.replace(leg, run=replay_run(leg)),
            root="",
            stem=STEM,
            extension=".ndjson",
            component="dead_letters",
        )

    def start(self) -> None:
        """Write this leg's link of the chain; fails at once where the place cannot be written."""
        self._staging.start(other_runs=False)

    def put(self, key: BatchKey, letters: Sequence[DeadLetter]) -> None:
        """Keep one batch's letters."""
        content = _encode_lines(letters)
        digest = hashlib.sha256(content).hexdigest()
        self._staging.put(key, content, records=len(letters), sha256=digest)

    def lines(self, frontier: Frontier) -> Iterator[bytes]:
        """Give the letters that count, each as its line.

        :raises CannotResumeError: somebody removed what an earlier leg had kept.
        """
        links, complete = self._staging.chain(frontier)
        require_whole_chain(self._store, complete=complete)
        for part in self._staging.counting(links):
            with self._store.stream(part.key) as file:
                while line := file.readline():
                    yield line

    def remove(self) -> None:
        """Remove all of it."""
        self._staging.remove_all()


@dataclass(frozen=True, kw_only=True, repr=False)
class ReplayLetters(Value):
    """The place for the letters of a replay that fail again: the one that they come from.

    The replay's sink prepares it, and writes the set anew at the end.

    :param url: the place.
    :param conn_id: name of the connection; not used for ``file://``.
    :param s3_settings: as the place has them.
    """

    __templated__: ClassVar[tuple[str, ...]] = ("url", "conn_id", "s3_settings")

    url: str
    conn_id: str = "aws_default"
    s3_settings: S3Settings | None = None

    def open(self, context: OpenContext) -> OpenReplayLetters:
        """Connect and look; writes nothing.

        :raises UsageError: no such place.
        :raises TransientError: the store does not answer.
        """
        store = open_store(parse_location(self.url), self.conn_id, context, s3_settings=self.s3_settings)
        try:
            store.check()
        except BatchkitError:
            store.close()
            raise
        return OpenReplayLetters(store)


class OpenReplayLetters(OpenDeadLetters):
    """An open :class:`ReplayLetters`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._staging: ReplayStaging | None = None

    @override
    def start(self, leg: Leg) -> None:
        self._staging = ReplayStaging(self._store, leg)

    @override
    def put(self, key: BatchKey, letters: Sequence[DeadLetter]) -> None:
        if self._staging is None:
            raise RuntimeError("start() comes before this call")
        self._staging.put(key, letters)

    @override
    def settle(self, publication: Publication) -> Mapping[str, Any]:
        """Say what failed again; the replay's sink counts it once more before it publishes."""
        return {"place": self._store.location.url, "count": publication.counts.get("dead_lettered", 0)}

    @override
    def close(self) -> None:
        self._store.close()
