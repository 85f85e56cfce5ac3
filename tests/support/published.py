"""Small exports that a test publishes for real, tampers with, and verifies."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.connectors.object_storage.verify.output import OutputVerifier
from airflow_batchkit.engine.exceptions import RecordError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget
from airflow_batchkit.testing.doubles import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_batchkit.connectors.object_storage.verify.verification import Verification
    from tests.support.object_storage import Place

_LOG = logging.getLogger("airflow_batchkit")


def refuse_marked(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give up the documents that say so: a transform."""
    if document.get("refuse"):
        raise RecordError("marked")
    return document


@dataclass(frozen=True)
class Published:
    """A place with an output in it.

    :param place: where.
    """

    place: Place

    @property
    def parts(self) -> list[dict[str, Any]]:
        """What the manifest says of each part."""
        parts: list[dict[str, Any]] = self.place.manifest()["parts"]
        return parts

    @property
    def first(self) -> str:
        """Key of the first part."""
        return str(self.parts[0]["key"])

    def verify(self, **settings: Any) -> Verification:
        """Verify the output."""
        return OutputVerifier(self.place.store(), seconds=60, log=_LOG, **settings).run()

    def problems(self, **settings: Any) -> dict[str, int]:
        """Verify the output and return how many problems of each kind there are."""
        found = self.verify(**settings).problems.to_dict()
        return {kind: tally["count"] for kind, tally in found.items()}

    def replace(self, key: str, change: Callable[[bytes], bytes]) -> None:
        """Put other bytes in the place of an object's."""
        self.place.store().put(key, change(self.place.content(key)))

    def remove(self, key: str) -> None:
        """Delete an object."""
        self.place.store().delete([key])

    def rewrite(self, key: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
        """Change the lines of a part, and the manifest so that it names its new bytes and sum."""
        lines = gzip.decompress(self.place.content(key)).splitlines(keepends=True)
        content = gzip.compress(b"".join(change(lines)), mtime=0)
        self.replace(key, lambda _: content)
        self.edit_part(key, {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        total = sum(part["bytes"] for part in self.parts)
        self.edit_head("total", lambda sums: {**sums, "bytes": total})

    def edit_part(self, key: str, changes: Mapping[str, Any]) -> None:
        """Change what the manifest says of one part."""

        def edit(line: bytes) -> bytes:
            part = json.loads(line.rstrip(b",\n"))
            if part["key"] != key:
                return line
            return b"    " + _compact({**part, **changes}) + line[len(line.rstrip(b",\n")) :]

        self._edit_lines(lambda line: edit(line) if line.startswith(b"    {") else line)

    def edit_head(self, name: str, change: Callable[[Any], Any]) -> None:
        """Change one field of the manifest's head."""

        def edit(line: bytes) -> bytes:
            field = json.loads(b"{" + line.rstrip(b",\n") + b"}")
            return b'  "%b": %b,\n' % (name.encode(), _compact(change(field[name])))

        self._edit_lines(lambda line: edit(line) if line.startswith(b'  "%b": ' % name.encode()) else line)

    def _edit_lines(self, edit: Callable[[bytes], bytes]) -> None:
        lines = self.place.content("manifest.json").splitlines(keepends=True)
        self.replace("manifest.json", lambda _: b"".join(map(edit, lines)))


def publish(
    place: Place,
    documents: Callable[[], list[Mapping[str, Any]]],
    *,
    run: str = "run-1",
    batch: int = 4,
    letters: str | None = None,
    **sink: Any,
) -> Published:
    """Export documents, each with an ``id``, and return what was published.

    :param batch: records of one object.
    :param letters: where dead letters go; those that are marked become some.
    """
    Pipeline(
        Job(
            name="job",
            source=IterableSource(records=documents, key="id"),
            sink=ObjectStorageSink(url=place.url, **sink),
            transform=None if letters is None else refuse_marked,
            batch=BatchPolicy(max_records=batch),
            error_budget=ErrorBudget(max_dead_letters=0 if letters is None else 1_000),
            dead_letters=None if letters is None else DeadLetters(letters),
        ),
        identity=RunIdentity(run=run),
        store=MemoryStore(),
        key="job",
        connections=place.connections,
    ).run()
    return Published(place)


def orders(count: int) -> list[Mapping[str, Any]]:
    """Make up orders."""
    return [{"id": str(number), "city": f"Zürich {number}", "amount": 1.5} for number in range(count)]


def ten() -> list[Mapping[str, Any]]:
    """Ten orders."""
    return orders(10)


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
