"""Two answers break off in the middle: what ``helpers.scan`` then loses without a word, ours does not."""

from __future__ import annotations

import gzip
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.elasticsearch_reading import make_index
from tests.support.fault_proxy import Fault, Plan, fault_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.elasticsearch import ElasticsearchEndpoint

pytestmark = pytest.mark.elasticsearch

DOCUMENTS = 100_000
PAGE = 1_000  # what helpers.scan asks for by default
BROKEN = (3, 7)
ALL_IDS = {str(number) for number in range(DOCUMENTS)}


@pytest.fixture(scope="module")
def index(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give the name of an index of 100,000 small documents in one shard."""
    name = f"peers-{secrets.token_hex(4)}"
    make_index(elasticsearch_server, name)
    for start in range(0, DOCUMENTS, 20_000):
        lines = "".join(
            f'{{"index":{{"_id":"{number}"}}}}\n{{"n":{number}}}\n' for number in range(start, start + 20_000)
        )
        elasticsearch_server.request("POST", f"/{name}/_bulk", lines.encode(), timeout=60)
    elasticsearch_server.request("POST", f"/{name}/_refresh")
    yield name
    elasticsearch_server.request("DELETE", f"/{name}")


def breaking(path: str) -> Plan:
    """Break two answers on a path in their middle: the server has done what it was asked by then."""

    def plan(requested: str, number: int) -> Fault:
        return "truncate" if requested == path and number in BROKEN else None

    return plan


def scan(url: str, index: str, **settings: int) -> Iterator[str]:
    """Read all ids of an index with ``helpers.scan``."""
    from elasticsearch import Elasticsearch, helpers

    with Elasticsearch(url, **settings) as client:  # type: ignore[arg-type]  # a few of its many settings
        for hit in helpers.scan(client, index=index):
            yield hit["_id"]


def test_scan_loses_two_pages_without_a_word(elasticsearch_server: ElasticsearchEndpoint, index: str) -> None:
    """The client repeats a scroll call whose answer broke off; the server answers with the page after it."""
    with fault_proxy(elasticsearch_server.url, breaking("/_search/scroll")) as (url, _):
        read = list(scan(url, index))
    assert len(read) == len(set(read)) == DOCUMENTS - len(BROKEN) * PAGE


def test_scan_without_retries_ends_at_the_first_broken_answer(
    elasticsearch_server: ElasticsearchEndpoint, index: str
) -> None:
    """With ``max_retries=0`` the scan raises instead of losing, and has no way to go on."""
    from elasticsearch import ConnectionError as BrokenConnectionError

    read: list[str] = []
    with (
        fault_proxy(elasticsearch_server.url, breaking("/_search/scroll")) as (url, _),
        pytest.raises(BrokenConnectionError),
    ):
        read.extend(scan(url, index, max_retries=0))
    assert len(read) < DOCUMENTS


def test_ours_loses_nothing(elasticsearch_server: ElasticsearchEndpoint, index: str, tmp_path: Path) -> None:
    """``batchkit copy`` through the same two broken answers exports each document exactly once."""
    with fault_proxy(elasticsearch_server.url, breaking("/_search")) as (url, proxy):
        done = subprocess.run(
            [
                *(sys.executable, "-c", "from airflow_batchkit.cli import main; main()", "copy"),
                *(f"elasticsearch+{url}/{index}", f"file://{tmp_path}/out"),
            ],
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert proxy.count("POST", "/_search") > max(BROKEN)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    read = [
        json.loads(line)["_id"]
        for part in manifest["parts"]
        for line in gzip.decompress((tmp_path / "out" / part["key"]).read_bytes()).splitlines()
    ]
    assert len(read) == DOCUMENTS
    assert set(read) == ALL_IDS
