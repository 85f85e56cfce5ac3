"""What came of a soak's job, compared with what should have, record by record."""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_batchkit.connectors.object_storage.locations import parse_location
from airflow_batchkit.connectors.object_storage.store import open_store
from airflow_batchkit.connectors.object_storage.verify.letters import verify_letters
from airflow_batchkit.connectors.object_storage.verify.output import OutputVerifier
from airflow_batchkit.engine.dead_letters import DeadLetter
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.stores.target import TARGET_KEY
from tests.support.object_storage import decompress
from tests.support.soak_jobs import Expected, SoakJob

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_batchkit.connectors.object_storage.store import ObjectStore
    from tests.support.soak_servers import Servers

_VERSION = re.compile(rb'(?<="),"_version":\d+(?=,)')
_LOG = logging.getLogger("soak.verify")
_STAYS = ("/owner.json", f"/checkpoint-{TARGET_KEY}.json")


@dataclass
class Oracle:
    """Looks at a job's target; every difference is one text in ``differences``.

    :param job: the job.
    :param servers: where its target is.
    :param thawed: tokens of legs of this run that woke up, perhaps when it was over: what they were sending
        when they froze may lie in their own staging, where nothing counts. The job's next run removes it.
    :param ever_thawed: likewise, of this run and those before it; dead letters of other runs are not touched.
    """

    job: SoakJob
    servers: Servers
    thawed: frozenset[str]
    ever_thawed: frozenset[str]
    differences: list[str] = field(default_factory=list)
    late: int = 0

    def compare(self, run: int) -> dict[str, Any]:
        """Compare the target with what its last run should have left.

        :param run: position of the run.
        :returns: ``differences``, how many ``records`` and ``letters`` were compared, and how many objects
            came ``late``.
        """
        expected = self.job.expected(run)
        with closing(self._store("data")) as data:
            lines, counts = self._output(data)
            self._verify(data)
        if self.job.changing:
            self._compare_changing(run, lines)
        else:
            self._compare_lines(expected, lines)
            self._compare_counts(run, expected, counts)
        letters = self._letters(run, expected.letters) if self.job.transforms else 0
        return {
            "differences": self.differences,
            "records": len(lines),
            "letters": letters,
            "late": self.late,
        }

    def _store(self, place: str) -> ObjectStore:
        context = OpenContext(
            connections=self.servers.connections(self.job), timeouts=Timeouts(), now=datetime.now(UTC)
        )
        return open_store(parse_location(f"{self.servers.url(self.job)}/{place}"), "s3", context)

    def _output(self, store: ObjectStore) -> tuple[list[bytes], Mapping[str, int]]:
        names = [*store.keys("")]
        manifest = json.loads(_content(store, "manifest.json"))
        listed = {part["key"] for part in manifest["parts"]}
        lying = {name for name in names if name.startswith("part-")}
        self._same("parts that lie there", lying, "parts that the manifest names", listed)
        self._check_staging(names, self.thawed)
        if "_SUCCESS" not in names:
            self.differences.append("_SUCCESS is missing")
        there = [part for part in manifest["parts"] if part["key"] in lying]
        contents = [decompress(part["key"], _content(store, part["key"])) for part in there]
        if any(not content for content in contents):
            self.differences.append("a part is empty")
        return [line for content in contents for line in content.split(b"\n")[:-1]], manifest["counts"]

    def _check_staging(self, names: list[str], thawed: frozenset[str]) -> None:
        staged = [name for name in names if "_batchkit/" in name and not f"/{name}".endswith(_STAYS)]
        late = {name for name in staged if thawed & set(name.split("/"))}
        self.late += len(late)
        self._same("left in the staging", set(staged) - late, "what should be", set())

    def _verify(self, store: ObjectStore) -> None:
        found = OutputVerifier(store, seconds=60, log=_LOG).run()
        if self.job.transforms:
            with closing(self._store("letters")) as letters:
                verify_letters(letters, found, seconds=60, stop_asked=lambda: None)
        if not found.whole:
            self.differences.append(f"verify: {json.dumps(found.problems.to_dict())}")

    def _compare_lines(self, expected: Expected, lines: list[bytes]) -> None:
        # Whoever loses a snapshot tells versions apart from then on, also of what has never changed.
        plain = (_VERSION.sub(b"", line, count=1) for line in lines)
        wanted, found = sorted(expected.lines.values()), sorted(plain)
        if wanted == found:
            return
        self._same("lines", set(found), "lines of the source", set(wanted))
        if len(found) != len(set(found)):
            self.differences.append(f"{len(found) - len(set(found))} lines are there more than once")

    def _compare_counts(self, run: int, expected: Expected, counts: Mapping[str, int]) -> None:
        wanted = {
            "read": self.job.runs[run],
            "written": len(expected.lines),
            "filtered": expected.filtered,
            "dead_lettered": len(expected.letters),
        }
        found = {name: counts[name] for name in wanted}
        if found != wanted:
            self.differences.append(f"counts are {found}, should be {wanted}")

    def _compare_changing(self, run: int, lines: list[bytes]) -> None:
        """Each document is there in at least one of its states, in none twice, and told apart."""
        copies: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for line in lines:
            document = json.loads(line)
            copies[document["number"]].append(document)
        self._same("documents", set(copies), "those of the index", set(range(self.job.runs[run])))
        for number, found in copies.items():
            states = sorted(document["state"] for document in found)
            if len(set(states)) < len(states) or (states != [0] and not self.job.changes(number)):
                self.differences.append(f"document {number} is there in the states {states}")
            newer = [document for document in found if document["state"] > states[0]]
            for document in found:
                wanted = json.loads(self.job.body(run, number, document["state"]))
                if document | wanted != document or document["_id"] != str(number):
                    self.differences.append(f"document {number} is another: {document}")
            if any("_version" not in document for document in newer):
                self.differences.append(f"nothing tells the copies of document {number} apart")

    def _letters(self, run: int, expected: Mapping[str, bytes]) -> int:
        with closing(self._store("letters")) as store:
            names = [*store.keys("")]
            self._check_staging(names, self.ever_thawed)
            folder = f"{self.job.name}/run-{run}/"
            letters = [
                msgspec.json.decode(line, type=DeadLetter)
                for name in names
                if name.startswith(folder) and name.endswith(".ndjson")
                for line in _content(store, name).splitlines()
            ]
        found = sorted((letter.id, bytes(letter.record)) for letter in letters)
        if found != sorted(expected.items()):
            self._same("dead letters", set(found), "those that were due", set(expected.items()))
            self.differences.append(f"{len(found)} dead letters, {len(expected)} were due")
        return len(letters)

    def _same(self, what: str, found: set[Any], of: str, wanted: set[Any]) -> None:
        if found != wanted:
            more, less = sorted(found - wanted)[:3], sorted(wanted - found)[:3]
            self.differences.append(
                f"{what}: {len(found - wanted)} more than {of}, such as {more!r:.300}, "
                f"and {len(wanted - found)} less, such as {less!r:.300}"
            )


def _content(store: ObjectStore, key: str) -> bytes:
    with store.read(key) as reading:
        return reading.file.read()
