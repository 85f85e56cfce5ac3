"""Documents that somebody changes all the while they are exported, and what has to come of them."""

from __future__ import annotations

import itertools
import json
import threading
import urllib.error
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.elasticsearch import ElasticsearchEndpoint

PADDING = "x" * 300
CHANGED_EVERY = 7
SHARES = 10


class ChangingDocuments:
    """An index of numbered documents, of which every seventh is changed again and again; new ones come too.

    :param server: where.
    :param index: empty, there already.
    :param count: how many documents there are from the beginning.
    """

    def __init__(self, server: ElasticsearchEndpoint, index: str, *, count: int) -> None:
        self._server = server
        self._index = index
        self._count = count
        self._over = threading.Event()
        self._confirmed: dict[str, int] = {}
        self.confirmed_before: dict[str, int] = {}
        self._write((str(number), 0) for number in range(count))
        self._server.request("POST", f"/{index}/_refresh")

    @contextmanager
    def changing(self, *, writers: int = 2) -> Iterator[None]:
        """Change documents for the time of a ``with`` block, from several threads."""
        threads = [threading.Thread(target=self._change, args=(each, writers)) for each in range(writers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(timeout=60)

    def note_confirmed(self) -> None:
        """Remember which changes are confirmed by now: an export that goes on later has to hold them."""
        self.confirmed_before = dict(self._confirmed)

    def check(self, lines: Iterable[bytes]) -> None:
        """Compare the lines of an export with what was there.

        :raises AssertionError: a document is missing, or is there in a state that it should not have.
        """
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in lines:
            document = json.loads(line)
            found[document["_id"]].append(document)
        for number in range(self._count):
            copies = found[str(number)]
            if number % CHANGED_EVERY:
                assert [copy["round"] for copy in copies] == [0], f"{number} was never changed: {copies}"
            else:
                self._check_changed(str(number), copies)
        assert any(self.confirmed_before.values()), "nothing was changed before the export went on"
        missing = self.confirmed_before.keys() - found.keys()
        assert not missing, f"confirmed before the export went on, and not in it: {sorted(missing)[:5]}"

    def _check_changed(self, id_: str, copies: list[dict[str, Any]]) -> None:
        rounds = [copy["round"] for copy in copies]
        assert copies, f"{id_} existed throughout and is not there"
        assert len(set(rounds)) == len(rounds), f"{id_} is there twice in one state: {rounds}"
        assert max(rounds) >= self.confirmed_before.get(id_, 0), f"a confirmed change of {id_} is missing"
        newer = sorted(copies, key=lambda copy: copy["round"])[1:]
        assert all("_version" in copy for copy in newer), f"{id_}: nothing tells its copies apart: {copies}"

    def _change(self, writer: int, writers: int) -> None:
        """Go round the documents that are this writer's alone, so that a later state is a higher one."""
        own = range(CHANGED_EVERY * writer, self._count, CHANGED_EVERY * writers)
        for turn in itertools.count(1):
            if self._over.is_set():
                return
            some = [str(number) for number in own[turn % SHARES :: SHARES]]
            try:
                self._write((id_, turn) for id_ in [*some, f"new-{writer}-{turn}"])
            except (urllib.error.URLError, OSError):
                continue  # whether this change was made is not known to who asked for it

    def _write(self, documents: Iterable[tuple[str, int]]) -> None:
        written = dict(documents)
        lines = [
            f'{{"index":{{"_id":"{id_}"}}}}\n{{"round":{turn},"p":"{PADDING}"}}\n'
            for id_, turn in written.items()
        ]
        answer = self._server.request("POST", f"/{self._index}/_bulk", "".join(lines).encode(), timeout=60)
        confirmed = [
            item["index"]["_id"] for item in answer["items"] if item["index"]["status"] in {200, 201}
        ]
        for id_ in confirmed:
            self._confirmed[id_] = written[id_]
