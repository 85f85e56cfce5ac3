"""What two broken connections cost: elasticdump, ``helpers.scan`` and ours through the same proxy.

Called as ``python -m benchmarks.losses``; needs node and npm. ``tests/faults/test_peers.py`` is the same
without elasticdump, in every test run.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import elasticdump, orders
from benchmarks.contenders import BATCHKIT, CHECKOUT
from tests.support.elasticsearch import ElasticsearchServer
from tests.support.fault_proxy import Fault, Plan, fault_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RECORDS = 100_000
BROKEN = (3, 7)
LONGEST_RUN_SECONDS = 120


def breaking(path: str) -> Plan:
    """Break two answers on a path in their middle, when the server has already done what it was asked."""

    def plan(requested: str, number: int) -> Fault:
        if requested == "/":
            return elasticdump.ROOT
        return "truncate" if requested == path and number in BROKEN else None

    return plan


def ids_by_scan(url: str, _folder: Path) -> Iterator[str]:
    """Read with the official client's helper, all settings at their defaults."""
    from elasticsearch import Elasticsearch, helpers

    with Elasticsearch(url) as client:
        for hit in helpers.scan(client, index=orders.INDEX):
            yield hit["_id"]


def ids_by_elasticdump(url: str, folder: Path) -> Iterator[str]:
    """Read with elasticdump, in pages of the same size, and insist that it is content with itself."""
    program = elasticdump.installed(CHECKOUT / ".cache" / "benchmarks")
    if program is None:
        raise RuntimeError("elasticdump needs node and npm")
    output = folder / "elasticdump.ndjson"
    source = (f"--input={url}/{orders.INDEX}", f"--output={output}", "--type=data", "--limit=1000")
    said = _run(folder, "node", str(program), *source)
    if "dump complete" not in said:
        raise RuntimeError(f"elasticdump did not say that it is done: {said[-500:]}")
    with output.open() as lines:
        for line in lines:
            yield json.loads(line)["_id"]


def ids_by_batchkit(url: str, folder: Path) -> Iterator[str]:
    """Read with ``batchkit copy``, and follow its manifest."""
    target = folder / "batchkit"
    source = f"elasticsearch+{url}/{orders.INDEX}"
    _run(folder, sys.executable, str(BATCHKIT), "copy", source, f"file://{target}")
    for part in json.loads((target / "manifest.json").read_bytes())["parts"]:
        with gzip.open(target / part["key"]) as lines:
            for line in lines:
                yield json.loads(line)["_id"]


READERS: Sequence[tuple[str, str, Callable[[str, Path], Iterator[str]]]] = (
    ("elasticsearch.helpers.scan", "/_search/scroll", ids_by_scan),
    (f"elasticdump {elasticdump.VERSION}", "/_search/scroll", ids_by_elasticdump),
    ("batchkit copy", "/_search", ids_by_batchkit),
)


def main() -> None:
    """Run all three and write one line for each."""
    everything = {str(number) for number in range(1, RECORDS + 1)}
    server = ElasticsearchServer()
    try:
        server.start()
        orders.load(server, orders.INDEX, RECORDS)
        for name, path, read in READERS:
            with tempfile.TemporaryDirectory() as folder, fault_proxy(server.url, breaking(path)) as (url, _):
                ids = list(read(url, Path(folder)))
            missing = len(everything - set(ids))
            twice = len(ids) - len(set(ids))
            sys.stdout.write(f"{name}: no error; {missing:,} of {RECORDS:,} missing, {twice:,} twice\n")
    finally:
        server.stop()


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(  # noqa: S603  # the commands above
        command,
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state")},
        capture_output=True,
        text=True,
        timeout=LONGEST_RUN_SECONDS,
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    main()
