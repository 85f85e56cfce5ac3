"""``batchkit verify`` as a person runs it: a process of its own, real servers, one exit code."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.elasticsearch_reading import make_index, put_all
from tests.support.object_storage import Place, S3Connections, make_place
from tests.support.published import Published, orders, publish, ten
from tests.support.s3_proxy import s3_proxy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.s3 import S3Server

BATCHKIT = (sys.executable, "-c", "from airflow_batchkit.cli import main; main()")
MEASURED = """
import re
from airflow_batchkit.cli import main
try:
    main()
finally:
    print("peak_kb=" + re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1], flush=True)
"""


def batchkit(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*BATCHKIT, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def output(request: pytest.FixtureRequest) -> Published:
    """Give an export of ten orders in a folder."""
    return publish(make_place("file", request), ten)


def test_exit_codes_of_an_output(output: Published) -> None:
    """0 for a whole output, 5 for a damaged one, 2 where there is none; the verdict comes first."""
    url = output.place.url

    whole = batchkit("verify", url)
    output.rewrite(output.first, lambda lines: lines[1:])
    damaged = batchkit("verify", url)
    nothing = batchkit("verify", f"{url}/nothing")
    wrong = batchkit("verify", "sqlite:///tmp/x.db?table=t")

    assert [each.returncode for each in (whole, damaged, nothing, wrong)] == [0, 5, 2, 2]
    assert whole.stdout.splitlines()[0] == f"{url} is whole"
    assert damaged.stdout.splitlines()[0] == f"{url} is DAMAGED, 1 problems"
    assert "has 3 lines, the manifest says 4: do not load" in damaged.stdout.splitlines()[1]
    assert "there is no manifest.json" in nothing.stderr.splitlines()[-1]
    assert "sqlite:// holds no objects" in wrong.stderr


def test_json_is_alone_on_standard_output(output: Published) -> None:
    """With --json there is one object, for whole and for damaged outputs alike."""
    output.remove("_SUCCESS")

    done = batchkit("verify", output.place.url, "--json")

    report = json.loads(done.stdout)
    assert (done.returncode, report["whole"], report["live"]) == (5, False, None)
    assert report["problems"]["success"]["count"] == 1


def test_dead_letters_are_read_where_one_says_they_are(request: pytest.FixtureRequest) -> None:
    """``--dead-letters`` takes the URL that ``copy`` was given, and finds the run's letters below it."""

    def documents() -> list[Mapping[str, Any]]:
        return [{**order, "refuse": order["id"] == "3"} for order in orders(10)]

    place = make_place("file", request)
    letters = place.below("letters").url
    publish(place.below("orders"), documents, letters=letters)

    unread = batchkit("verify", place.below("orders").url)
    read = batchkit("verify", place.below("orders").url, "--dead-letters", letters)

    assert "(not read: add --dead-letters URL)" in unread.stdout
    assert read.returncode == 0
    assert "(1 read)" in read.stdout


@pytest.mark.elasticsearch
def test_live_index_that_changed_is_told_apart_from_damage(
    elasticsearch_server: ElasticsearchEndpoint, tmp_path: Path
) -> None:
    """An index that changed since gives 6 and the ids of what differs, without any content."""
    name = f"orders-{secrets.token_hex(4)}"
    make_index(elasticsearch_server, name, shards=2)
    put_all(elasticsearch_server, name, {str(n): {"n": n, "secret": f"Zürich {n}"} for n in range(200)})
    index = f"{elasticsearch_server.url.replace('http://', 'elasticsearch+http://')}/{name}"
    target, state = f"file://{tmp_path}/out", str(tmp_path / "state")
    query = json.dumps({"range": {"n": {"lt": 100}}})
    against = ("verify", target, "--against", index, "--query", query)
    copied = batchkit("copy", index, target, "--query", query, XDG_STATE_HOME=state)
    assert copied.returncode == 0, copied.stderr

    same = batchkit(*against)
    put_all(elasticsearch_server, name, {"7": {"n": 7, "secret": "Bern"}})
    elasticsearch_server.request("DELETE", f"/{name}/_doc/8?refresh=true")
    changed = batchkit(*against, "--json")
    sampled = [batchkit(*against, "--json", "--sample", "10", "--seed", "3").stdout for _ in range(2)]

    assert same.returncode == 0, same.stdout + same.stderr
    assert (
        "agrees with the live index: 100 documents match now, 100 were compared byte for byte" in same.stdout
    )
    live = json.loads(changed.stdout)["live"]
    assert changed.returncode == 6
    assert (live["exported"], live["live"], live["sampled"], live["by_bytes"]) == (100, 99, 100, True)
    assert live["differences"] == {
        "gone": {"count": 1, "examples": ["_id '8' is not in the live index"]},
        "changed": {"count": 1, "examples": ["_id '7' differs in the live index"]},
        "count": {"count": 1, "examples": ["the export read 100 documents, 99 match now (-1)"]},
    }
    assert "Zürich" not in changed.stdout + changed.stderr
    first, second = (json.loads(text)["live"] for text in sampled)
    assert first == second
    assert first["sampled"] == 10


@pytest.mark.s3
def test_broken_connection_is_tried_again(s3_server: S3Server, bucket: str) -> None:
    """A download that breaks off is begun anew; a store that does not answer is no verdict, and code 1."""
    broken: list[str] = []

    def plan(method: str, path: str) -> Any:
        if method == "GET" and ".ndjson" in path and path not in broken:
            broken.append(path)
            return "reset"
        return None

    connections = S3Connections(endpoint_url=s3_server.endpoint_url)
    publish(Place(url=f"s3://{bucket}/out", connections=connections), ten)

    with s3_proxy(s3_server.endpoint_url, plan) as url:
        again = batchkit(
            "verify", f"s3://{bucket}/out", **{**s3_server.environment(), "AWS_ENDPOINT_URL_S3": url}
        )
    away = batchkit("verify", f"s3://{bucket}/out", **{**s3_server.environment(), "AWS_ENDPOINT_URL_S3": url})

    assert again.returncode == 0, again.stderr
    assert len(broken) == 3
    assert away.returncode == 1
    assert "cannot tell whether it is whole" in away.stderr


@pytest.mark.s3
def test_ctrl_c_twice_ends_at_once(s3_server: S3Server, bucket: str) -> None:
    """Where the store hangs, the second Ctrl-C ends the command at once, with code 4."""
    asked, go = threading.Event(), threading.Event()

    def plan(method: str, path: str) -> Any:
        if method == "GET" and ".ndjson" in path:
            asked.set()
            go.wait(60)
        return None

    connections = S3Connections(endpoint_url=s3_server.endpoint_url)
    publish(Place(url=f"s3://{bucket}/out", connections=connections), ten)
    with s3_proxy(s3_server.endpoint_url, plan) as url:
        process = subprocess.Popen(
            [*BATCHKIT, "verify", f"s3://{bucket}/out"],
            env={**os.environ, **s3_server.environment(), "AWS_ENDPOINT_URL_S3": url},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        while "Ctrl-C again ends at once" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        go.set()

    assert process.returncode == 4
    assert "nothing was changed, the same command begins anew" in said


def test_memory_is_flat(request: pytest.FixtureRequest) -> None:
    """Eight times as many ids take no more memory, but for what the allocator varies by from run to run."""
    place = make_place("file", request)

    def peak_mb(count: int) -> float:
        url = publish(place.below(str(count)), lambda: orders(count), batch=20_000).place.url
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, "verify", url],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"read {count:,} records" in done.stdout
        found = re.search(r"peak_kb=(\d+)", done.stdout)
        assert found is not None
        return int(found[1]) / 1024

    few, many = peak_mb(250_000), peak_mb(2_000_000)

    # Kept in memory, the ids would take 14 MB more even as bare hashes, and 100 MB as a set.
    assert many <= few + 7, (few, many)
