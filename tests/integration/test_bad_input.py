"""Bad input ends with one clear line and a non-zero exit code; the output that was there stays as it was."""

from __future__ import annotations

import json
import secrets
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.copying import Copying, last_line
from tests.support.folder_runs import SmallDisk, small_disk
from tests.support.processes import free_port

if TYPE_CHECKING:
    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.s3 import S3Server

pytestmark = [pytest.mark.elasticsearch, pytest.mark.s3]


@pytest.fixture
def copying(tmp_path: Path, s3_server: S3Server) -> Copying:
    """Give a function that runs ``batchkit copy``."""
    return Copying(tmp_path, s3_server.environment())


@pytest.fixture
def index_url(elasticsearch_server: ElasticsearchEndpoint) -> Iterator[str]:
    """Give the URL of an index of ten orders."""
    name = f"bad-{secrets.token_hex(4)}"
    lines = "".join(f'{{"index":{{"_id":"{n}"}}}}\n{{"n":{n},"at":"2026-11-2{n % 10}"}}\n' for n in range(10))
    elasticsearch_server.request("POST", f"/{name}/_bulk?refresh=true", lines.encode())
    yield f"{elasticsearch_server.url.replace('http://', 'elasticsearch+http://')}/{name}"
    elasticsearch_server.request("DELETE", f"/{name}?ignore_unavailable=true")


@pytest.fixture
def orders_url(tmp_path: Path) -> str:
    """Give the URL of a SQLite table of twenty orders."""
    path = tmp_path / "orders.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT)")
        database.executemany("INSERT INTO orders VALUES (?, ?)", [(n, f"note {n}") for n in range(20)])
    database.close()
    return f"sqlite://{path}?table=orders"


def test_unknown_index(copying: Copying, index_url: str, tmp_path: Path) -> None:
    """The line names the index and the server."""
    done = copying(f"{index_url}-gone", f"file://{tmp_path}/out")

    assert "there is no such index" in last_line(done, exit_code=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ('{"rang": {}}', "rang"),
        ('{"query_string": {"query": "at:>now"}}', "now"),
        ('{"range": {"at": {"gte": "now-1parsec"}}}', "date math"),
        ("{}", "the query is empty"),
        ("[1]", "JSON"),
    ],
)
def test_malformed_query(copying: Copying, index_url: str, tmp_path: Path, query: str, said: str) -> None:
    """A query that the server refuses, that is empty, or whose ``now`` cannot be resolved, says why."""
    done = copying(index_url, f"file://{tmp_path}/out", "--query", query)

    assert said in last_line(done, exit_code=2)
    assert not (tmp_path / "out").exists()


def test_no_bucket(copying: Copying, index_url: str) -> None:
    """The line names the bucket that is not there."""
    done = copying(index_url, "s3://there-is-no-such-bucket/out")

    assert "there-is-no-such-bucket" in last_line(done, exit_code=2)


def test_unwritable_prefix(copying: Copying, index_url: str, tmp_path: Path) -> None:
    """A path below a file cannot be a folder: the line says so and what to do."""
    (tmp_path / "file").write_text("")

    done = copying(index_url, f"file://{tmp_path}/file/out")

    assert "choose another folder" in last_line(done, exit_code=2)


def test_refused_connection(copying: Copying, tmp_path: Path) -> None:
    """A server that is not there is named, and the line says how to go on."""
    done = copying(f"elasticsearch+http://127.0.0.1:{free_port()}/orders", f"file://{tmp_path}/out")

    line = last_line(done, exit_code=1)
    assert "127.0.0.1" in line
    assert "run the same command again" in line


def test_prefix_of_another_job(copying: Copying, index_url: str, orders_url: str, tmp_path: Path) -> None:
    """The line names the job that owns the prefix; its output is untouched."""
    target = f"file://{tmp_path}/out"
    assert copying(orders_url, target).returncode == 0
    before = picture(tmp_path / "out")

    done = copying(index_url, target)

    assert "belongs to the job" in last_line(done, exit_code=2)
    assert picture(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda stored: stored[: len(stored) // 2], "damaged"),
        (lambda stored: stored.replace('"read":20', '"read":10'), "damaged"),
        (lambda stored: resealed(stored.replace('"schema":1', '"schema":99')), "upgrade"),
        (
            lambda stored: resealed(stored.replace('"query":"', '"query":"0')),
            "changed since the checkpoint: query",
        ),
    ],
)
def test_checkpoint_that_does_not_fit(
    copying: Copying, orders_url: str, tmp_path: Path, damage: Callable[[str], str], said: str
) -> None:
    """A damaged or newer checkpoint, or one of another query, is refused and kept; --restart helps."""
    checkpoint = tmp_path / "checkpoint.json"
    target = f"file://{tmp_path}/out"
    assert copying(orders_url, target, "--checkpoint", str(checkpoint)).returncode == 0
    stored = checkpoint.read_text().replace('"status":"completed"', '"status":"running"')
    checkpoint.write_text(damage(resealed(stored)))
    before, damaged = picture(tmp_path / "out"), checkpoint.read_text()

    done = copying(orders_url, target, "--checkpoint", str(checkpoint))

    assert said in last_line(done, exit_code=1)
    assert checkpoint.read_text() == damaged
    assert picture(tmp_path / "out") == before
    assert copying(orders_url, target, "--checkpoint", str(checkpoint), "--restart").returncode == 0


def test_index_made_anew(
    copying: Copying, index_url: str, elasticsearch_server: ElasticsearchEndpoint, tmp_path: Path
) -> None:
    """An index that was deleted and made again under the same name is another source: no resume."""
    checkpoint = tmp_path / "checkpoint.json"
    target = f"file://{tmp_path}/out"
    assert copying(index_url, target, "--checkpoint", str(checkpoint)).returncode == 0
    stored = checkpoint.read_text().replace('"status":"completed"', '"status":"running"')
    checkpoint.write_text(resealed(stored))
    name = index_url.rpartition("/")[2]
    elasticsearch_server.request("DELETE", f"/{name}")
    elasticsearch_server.request("PUT", f"/{name}/_doc/1?refresh=true", {"n": 1})

    done = copying(index_url, target, "--checkpoint", str(checkpoint))

    assert "changed since the checkpoint: source" in last_line(done, exit_code=1)


def test_disk_full(copying: Copying, orders_url: str, disk: SmallDisk) -> None:
    """A disk that fills up ends the run with one line; nothing is published, nothing torn is left visible."""
    disk.leave(3)

    done = copying(orders_url, f"file://{disk.folder}/out", "--compression", "none")

    assert "the disk is full" in last_line(done, exit_code=1)
    assert not list((disk.folder / "out").glob("part-*"))
    assert not (disk.folder / "out" / "manifest.json").exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Give a file system of 200 KB."""
    with small_disk(tmp_path / "small", pages=52) as disk:
        yield disk


def resealed(stored: str) -> str:
    """Return a stored checkpoint whose checksum fits what was changed in it."""
    payload = stored.partition('"checkpoint":')[2][:-1]
    return f'{{"crc32":{zlib.crc32(payload.encode())},"checkpoint":{payload}}}'


def picture(folder: Path) -> dict[str, bytes]:
    """Return what a consumer finds in a folder."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if (path.is_file() and path.name in {"manifest.json", "_SUCCESS"}) or path.name.startswith("part-")
    }


def test_resealed_is_what_the_store_reads() -> None:
    """The helper of these tests makes checkpoints that only fail for what was changed in them."""
    payload = json.dumps({"schema": 1})
    assert json.loads(resealed(f'{{"crc32":0,"checkpoint":{payload}}}'))["crc32"] == zlib.crc32(
        payload.encode()
    )
