"""The floor: the same pages from both shards at once, fetched and thrown away, as cheaply as Python can.

Called as ``python -m benchmarks.bare_drain INDEX [sliced] [in-turn]``. Nothing is decoded: the last position
of a page is found by a search for its name, which real code must not do. With ``sliced``, pages are cut into
records by msgspec, as any export has to, and then thrown away; with ``in-turn``, one shard is drained after
the other, by one connection.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

from benchmarks.orders import SHARDS

PAGE_BYTES = 3 * 1024 * 1024  # what our source aims at
FIRST_PAGE_RECORDS = 500
MAX_RECORDS = 10_000
TIMEOUT_SECONDS = 60


class Shard:
    """One shard on its way down the drain.

    :param netloc: host and port of the server.
    :param index: the index.
    :param number: of the shard.
    :param look: called with each page.
    """

    def __init__(self, netloc: str, index: str, number: int, *, look: Callable[[bytes], object]) -> None:
        self.records = 0
        self._look = look
        self._connection = http.client.HTTPConnection(netloc, timeout=TIMEOUT_SECONDS)
        self._index = index
        self._number = number

    def drain(self) -> None:
        """Fetch all pages."""
        where = f"/{self._index}/_pit?keep_alive=1m&preference=_shards:{self._number}"
        point_in_time = {"id": json.loads(self._ask(where, None))["id"], "keep_alive": "1m"}
        size, after = FIRST_PAGE_RECORDS, None
        while True:
            body = {"size": size, "sort": ["_shard_doc"], "track_total_hits": False, "pit": point_in_time}
            answer = self._ask("/_search", body if after is None else {**body, "search_after": [after]})
            self._look(answer)
            count = answer.count(b'"_source":')
            self.records += count
            if count < size:
                return
            start = answer.rindex(b'"sort":[') + len(b'"sort":[')
            after = int(answer[start : answer.index(b"]", start)])
            size = min(MAX_RECORDS, PAGE_BYTES * count // len(answer))

    def _ask(self, path: str, body: object) -> bytes:
        text = None if body is None else json.dumps(body)
        self._connection.request("POST", path, body=text, headers={"Content-Type": "application/json"})
        with self._connection.getresponse() as response:
            return response.read()


def main() -> None:
    """Drain an index."""
    netloc = urlsplit(os.environ["BENCH_ELASTICSEARCH_URL"]).netloc
    index, *how = sys.argv[1:]
    look = _slicer() if "sliced" in how else len
    shards = [Shard(netloc, index, number, look=look) for number in range(SHARDS)]
    threads = [threading.Thread(target=shard.drain) for shard in shards]
    for thread in threads:
        thread.start()
        if "in-turn" in how:
            thread.join()
    for thread in threads:
        thread.join()
    sys.stdout.write(f"{sum(shard.records for shard in shards)}\n")


def _slicer() -> Callable[[bytes], object]:
    from airflow_batchkit.connectors.elasticsearch.pages import decode_page

    return partial(decode_page, with_index=False, about="the drain")


if __name__ == "__main__":
    main()
